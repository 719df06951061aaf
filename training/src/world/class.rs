//! The things of the world.

use crate::world::Split;
use crate::world::phrases;

/// What kind of thing a class is, which is also what instructions may call it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Cats, dogs and other animals.
    Animal,
    /// Apples, bananas and other fruit.
    Fruit,
    /// What one holds to do something: knife, scissors, spoon.
    Tool,
    /// Everything else; such things share no word but "object".
    Thing,
}

impl Kind {
    /// The word that names this kind, if it has one of its own.
    pub fn word(self) -> Option<&'static str> {
        match self {
            Self::Animal => Some("animal"),
            Self::Fruit => Some("fruit"),
            Self::Tool => Some("tool"),
            Self::Thing => None,
        }
    }
}

struct Entry {
    name: &'static str,
    noun: &'static str,
    colour: Option<&'static str>,
    kind: Kind,
    svg: &'static str,
}

const fn first(colours: &[&'static str]) -> Option<&'static str> {
    match colours {
        [] => None,
        [colour, ..] => Some(colour),
    }
}

macro_rules! entries {
    ($($kind:ident $(($colour:literal))? $noun:literal $file:literal;)*) => {
        &[$(Entry {
            name: concat!($($colour, " ",)? $noun),
            noun: $noun,
            colour: first(&[$($colour)?]),
            kind: Kind::$kind,
            svg: include_str!(concat!("../../emoji/", $file, ".svg")),
        }),*]
    };
}

const ENTRIES: &[Entry; Class::COUNT] = entries! {
    Animal "cat" "cat";
    Animal "dog" "dog";
    Animal "fox" "fox";
    Animal "wolf" "wolf";
    Animal "bear" "bear";
    Animal "tiger" "tiger";
    Animal "lion" "lion";
    Animal "panda" "panda";
    Animal "rabbit" "rabbit";
    Fruit("red") "apple" "red-apple";
    Fruit("green") "apple" "green-apple";
    Fruit "orange" "orange";
    Fruit "peach" "peach";
    Fruit "strawberry" "strawberry";
    Fruit "banana" "banana";
    Tool "knife" "knife";
    Tool "scissors" "scissors";
    Tool "spoon" "spoon";
    Thing "clock" "clock";
    Thing "cake" "cake";
    Thing("red") "book" "red-book";
    Thing("blue") "book" "blue-book";
    Thing("green") "book" "green-book";
    Thing("red") "car" "red-car";
    Thing("blue") "car" "blue-car";
    Thing "ball" "ball";
    Thing "umbrella" "umbrella";
};

/// One of the world's classes of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Class(u8);

impl Class {
    /// How many classes there are.
    pub const COUNT: usize = 27;

    /// Every class, in the order of [`Class::index`].
    pub const ALL: [Self; Self::COUNT] = {
        let mut all = [Self(0); Self::COUNT];
        let mut index = 0;
        while index < Self::COUNT {
            all[index] = Self(index as u8);
            index += 1;
        }
        all
    };

    /// The class of this [`Class::name`].
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.name() == name)
    }

    /// Its place in [`Class::ALL`].
    pub fn index(self) -> usize {
        usize::from(self.0)
    }

    /// Its full name, which no other class has: "red apple".
    pub fn name(self) -> &'static str {
        self.entry().name
    }

    /// Its name without the colour, which the other colours share: "apple".
    pub fn noun(self) -> &'static str {
        self.entry().noun
    }

    /// Its colour, if the same thing exists in other colours too.
    pub fn colour(self) -> Option<&'static str> {
        self.entry().colour
    }

    /// What kind of thing it is.
    pub fn kind(self) -> Kind {
        self.entry().kind
    }

    /// Its name after the indefinite article, where it takes one: "an orange", "scissors".
    pub fn indefinite(self) -> String {
        let name = self.name();
        if self.is_plural() {
            name.to_owned()
        } else if name.starts_with(['a', 'e', 'i', 'o', 'u']) {
            format!("an {name}")
        } else {
            format!("a {name}")
        }
    }

    /// Whether its name is a plural.
    pub fn is_plural(self) -> bool {
        self.noun() == "scissors"
    }

    /// Descriptions that fit no other noun, for those who know the world; see [`Split`].
    pub fn phrases(self, split: Split) -> &'static [&'static str] {
        phrases::of_noun(self.noun(), split)
    }

    /// The words that name it in a group, narrowest first: "cat", "animal", "object".
    pub(crate) fn groups(self) -> impl Iterator<Item = &'static str> {
        [Some(self.noun()), self.kind().word(), Some("object")].into_iter().flatten()
    }

    /// Whether a word of [`Class::groups`] names it.
    pub(crate) fn is_a(self, group: &str) -> bool {
        self.groups().any(|word| word == group)
    }

    pub(crate) fn svg(self) -> &'static str {
        self.entry().svg
    }

    fn entry(self) -> &'static Entry {
        &ENTRIES[self.index()]
    }
}
