//! The page on which people judge, and what becomes of their judgements.

use std::collections::BTreeMap;

use serde_json::json;

use super::benchmark::Benchmark;

/// The items of a page, in its order.
fn items(page: &str) -> Vec<String> {
    let rest = page.split("data-item=\"").skip(1);
    rest.map(|rest| rest.split('"').next().unwrap().to_owned()).collect()
}

impl Benchmark {
    /// Edits of two deployments: `right` and `untouched`.
    fn edited_twice() -> Self {
        let place = Self::new();
        place.write_edited("right", |scene| scene.target());
        place.write_edited("untouched", |scene| scene.source());
        place
    }

    /// Evaluates both deployments.
    fn evaluate_both(&self, more: &[&str]) -> super::Ended {
        let (right, untouched) = (self.path("right"), self.path("untouched"));
        self.evaluate(&[&["--edited", &right, "--edited", &untouched], more].concat())
    }

    /// The page that is written with a seed.
    fn page(&self, seed: &str) -> String {
        let human = self.path("human.html");
        self.evaluate_both(&["--human", &human, "--seed", seed]).succeeded();
        std::fs::read_to_string(human).unwrap()
    }

    /// Writes the judgements of a judge.
    fn write_judgements(&self, name: &str, judgements: &BTreeMap<String, bool>) -> String {
        self.write(name, json!({ "format": 1, "judgements": judgements }).to_string());
        self.path(name)
    }
}

#[test]
fn the_page_tells_nobody_who_made_an_edit() {
    let place = Benchmark::edited_twice();
    let page = place.page("1");
    let shown = items(&page);
    // Scenes of one number and one instruction are the same to everybody: relative-size, color, multiple-objects and
    // reasoning share theirs, the mirror's first one is its own.
    assert!(shown.len() > 8 && shown.len() < 28, "{}", shown.len());
    for told in ["untouched", "/right", "left-right", "http"] {
        assert!(!page.contains(told), "the page tells {told}");
    }
    assert_eq!(page.matches("src=\"data:image/png;base64,").count(), 2 * shown.len());
    assert_eq!(items(&place.page("1")), shown, "a seed means an order");
    let other = items(&place.page("2"));
    assert_ne!(other, shown);
    let sorted = |mut items: Vec<String>| {
        items.sort();
        items
    };
    assert_eq!(sorted(other), sorted(shown));
}

#[test]
fn judgements_come_back_as_a_column() {
    let place = Benchmark::edited_twice();
    place.evaluate(&["--edited", &place.path("right"), "--human", &place.path("right.html")]).succeeded();
    let right = items(&std::fs::read_to_string(place.path("right.html")).unwrap());
    let all = items(&place.page("0"));
    let strict: BTreeMap<_, _> = all.iter().map(|item| (item.clone(), right.contains(item))).collect();
    let mut lenient: BTreeMap<_, _> = all.iter().map(|item| (item.clone(), true)).collect();
    lenient.insert("0".repeat(32), true);
    let judges = [("strict.json", &strict), ("lenient.json", &lenient)];
    let [strict, lenient] = judges.map(|(name, judgements)| place.write_judgements(name, judgements));

    place.evaluate_both(&["--judgements", &strict]).succeeded();
    let found = |name: &str| place.scores()["deployments"][name]["understanding"]["ins_align"].clone();
    assert_eq!((found("right"), found("untouched")), (json!(1.0), json!(0.0)));
    assert!(place.scores()["absent"]["ins_align"].is_null());

    let ended = place.evaluate_both(&["--judgements", &strict, "--judgements", &lenient]);
    ended.succeeded();
    assert_eq!((found("right"), found("untouched")), (json!(1.0), json!(0.5)));
    assert!(ended.out.contains("1 judgement is about another picture"), "{}", ended.out);
}

#[test]
fn judgements_that_are_none_are_named() {
    let place = Benchmark::edited_twice();
    place.write("judgements.json", "[]");
    let judgements = place.path("judgements.json");
    place.evaluate_both(&["--judgements", &judgements]).failed(1, &["judgements.json"]);
    place.write("judgements.json", json!({ "format": 9, "judgements": {} }).to_string());
    place.evaluate_both(&["--judgements", &judgements]).failed(1, &["judgements.json", "format 9"]);
    place.evaluate_both(&["--judgements", "nowhere.json"]).failed(1, &["nowhere.json"]);
}
