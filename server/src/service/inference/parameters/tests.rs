use super::*;

fn given<const N: usize>(given: [(&str, ParameterChoice); N]) -> HashMap<String, InferParameter> {
    let parameter = |choice| InferParameter { parameter_choice: Some(choice) };
    given.into_iter().map(|(name, choice)| (name.to_owned(), parameter(choice))).collect()
}

fn text(text: &str) -> ParameterChoice {
    ParameterChoice::StringParam(text.to_owned())
}

fn read<const N: usize>(
    parameters: [(&str, ParameterChoice); N],
    streaming: bool,
) -> Result<(Option<Duration>, EditParameters), Violations> {
    let mut violations = Violations::default();
    let mut parameters = Parameters::new(given(parameters), &mut violations);
    let read = (parameters.timeout(), parameters.edit(streaming));
    parameters.finish();
    if violations.is_empty() { Ok(read) } else { Err(violations) }
}

#[test]
fn an_edits_options() {
    use ParameterChoice::{BoolParam, DoubleParam, Int64Param, Uint64Param};
    let parameters = [
        ("seed", Uint64Param(u64::MAX)),
        ("steps", Int64Param(3)),
        ("text_guidance", DoubleParam(7.5)),
        ("image_guidance", Int64Param(2)),
        ("width", Int64Param(64)),
        ("height", Uint64Param(32)),
        ("scheduler", text("ddim")),
        ("output_format", text("jpeg")),
        ("no_cache", BoolParam(true)),
        ("adapter", text("cats")),
        ("adapter_scale", DoubleParam(0.5)),
        ("priority", Uint64Param(2)),
        ("preview_interval", Int64Param(2)),
        ("progress", BoolParam(true)),
        ("timeout", Int64Param(1500)),
        ("triton_enable_empty_final_response", BoolParam(true)),
    ];
    let (timeout, EditParameters { options, progress }) = read(parameters, true).unwrap();
    assert_eq!(timeout, Some(Duration::from_micros(1500)));
    assert!(progress);
    let expected = v1::EditOptions {
        seed: Some(u64::MAX),
        steps: Some(3),
        text_guidance: Some(7.5),
        image_guidance: Some(2.0),
        resolution: Some(v1::Resolution { width: 64, height: 32 }),
        scheduler: v1::Scheduler::Ddim.into(),
        output_format: v1::OutputFormat::Jpeg.into(),
        no_cache: true,
        adapter: Some("cats".to_owned()),
        adapter_scale: Some(0.5),
        priority: v1::Priority::Batch.into(),
        preview_interval: Some(2),
        ..v1::EditOptions::default()
    };
    assert_eq!(options, expected);
    let (timeout, EditParameters { options, progress }) = read([], false).unwrap();
    assert_eq!((timeout, options, progress), (None, v1::EditOptions::default(), false));
}

#[test]
fn what_cannot_be_is_named() {
    use ParameterChoice::{BoolParam, Int64Param};
    for (name, choice, field, words) in [
        ("stpes", Int64Param(3), "parameters.stpes", "is not known; there are "),
        ("triton_foo", Int64Param(3), "parameters.triton_foo", "is not known"),
        ("sequence_id", Int64Param(3), "parameters.sequence_id", "is not known"),
        ("timeout", text("1"), "parameters.timeout", "needs int64_param"),
        ("priority", Int64Param(3), "parameters.priority", "1, interactive, and 2, batch"),
        ("steps", Int64Param(-1), "parameters.steps", "needs int64_param of 0 or more"),
        ("steps", Int64Param(1 << 40), "parameters.steps", "too large"),
        ("text_guidance", text("7.5"), "parameters.text_guidance", "needs double_param"),
        ("scheduler", text("Euler"), "parameters.scheduler", "euler_ancestral, euler, ddim"),
        ("width", Int64Param(64), "parameters.height", "where there is a width"),
        ("progress", BoolParam(true), "parameters.progress", "needs ModelStreamInfer"),
        ("preview_interval", Int64Param(1), "parameters.preview_interval", "needs progress"),
    ] {
        let violations = read([(name, choice)], false).map(drop).unwrap_err();
        let found: Vec<_> = violations.iter().collect();
        assert!(found.len() == 1 && found[0].0 == field && found[0].1.contains(words), "{found:?}");
    }
}

#[test]
fn an_empty_parameter_is_refused() {
    let mut violations = Violations::default();
    let given = HashMap::from([("seed".to_owned(), InferParameter::default())]);
    Parameters::new(given, &mut violations).options();
    assert_eq!(violations.iter().count(), 1);
}

#[test]
fn runs_of_stages_have_no_priority() {
    for (priority, expected) in [(0, 0), (1, 1)] {
        let mut violations = Violations::default();
        let given = given([("priority", ParameterChoice::Int64Param(priority))]);
        let mut parameters = Parameters::new(given, &mut violations);
        parameters.stage();
        parameters.finish();
        assert_eq!(violations.iter().count(), expected);
    }
}
