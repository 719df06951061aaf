//! Descriptions that take knowledge of the world: each fits exactly one noun.

use crate::world::Split;

struct Phrases {
    noun: &'static str,
    trained: &'static [&'static str],
    held_out: &'static [&'static str],
}

/// The phrases of one noun; none for a word that is no noun of the world.
pub(crate) fn of_noun(noun: &str, split: Split) -> &'static [&'static str] {
    match (PHRASES.iter().find(|phrases| phrases.noun == noun), split) {
        (None, _) => &[],
        (Some(phrases), Split::Train) => phrases.trained,
        (Some(phrases), Split::HeldOut) => phrases.held_out,
    }
}

const PHRASES: &[Phrases] = &[
    Phrases {
        noun: "cat",
        trained: &[
            "animal that says meow",
            "animal that likes to chase mice",
            "animal that purrs",
            "animal that catches mice in the house",
            "pet that says meow",
            "pet that uses a litter box",
        ],
        held_out: &["pet that likes to catch mice", "animal that purrs and says meow"],
    },
    Phrases {
        noun: "dog",
        trained: &[
            "animal that is usually known as friend of humans",
            "animal that barks",
            "animal that guards the house",
            "animal that people keep to guard the house",
            "pet that barks at strangers",
            "pet that people walk on a leash",
        ],
        held_out: &["animal that people keep as a guard", "pet that is known as a friend of humans"],
    },
    Phrases {
        noun: "fox",
        trained: &[
            "animal that is known for being sly",
            "animal that is usually known as cunning",
            "sly animal with orange fur",
            "animal that steals chickens from the farm",
            "cunning animal with a bushy tail",
        ],
        held_out: &["sly animal that steals chickens", "animal with orange fur and a bushy tail"],
    },
    Phrases {
        noun: "wolf",
        trained: &[
            "animal that howls at the moon",
            "animal that is the ancestor of dogs",
            "wild gray animal that hunts in a pack",
            "animal that lives in a pack",
            "gray animal that howls",
        ],
        held_out: &["gray animal that lives in a pack", "wild ancestor of dogs"],
    },
    Phrases {
        noun: "bear",
        trained: &[
            "animal that loves honey",
            "animal that sleeps through the winter",
            "brown animal of the forest",
            "animal that catches salmon in the river",
            "brown animal that is known as a teddy toy",
        ],
        held_out: &["brown animal that loves honey", "animal of the forest that sleeps in the winter"],
    },
    Phrases {
        noun: "tiger",
        trained: &[
            "animal with black stripes",
            "wild cat with stripes",
            "striped animal of the jungle",
            "animal with orange fur and black stripes",
            "striped cat that hunts in the jungle",
        ],
        held_out: &["striped wild cat", "wild animal with black stripes"],
    },
    Phrases {
        noun: "lion",
        trained: &[
            "animal that is known as the king of the jungle",
            "animal with a mane",
            "king of all animals",
            "animal that roars and has a mane",
            "wild cat with a mane",
        ],
        held_out: &["wild cat that is the king of animals", "wild animal that has a mane"],
    },
    Phrases {
        noun: "panda",
        trained: &[
            "animal that eats bamboo",
            "black and white animal from China",
            "animal that lives in the bamboo forest",
            "animal that is a symbol of China",
            "black and white animal that eats leaves of bamboo",
        ],
        held_out: &["animal from China that loves bamboo", "black and white animal of the bamboo forest"],
    },
    Phrases {
        noun: "rabbit",
        trained: &[
            "animal that loves carrots",
            "animal with long ears",
            "animal that hops in the field",
            "pet that eats carrots",
            "animal that brings eggs at Easter",
        ],
        held_out: &["pet with long ears that hops", "animal that eats carrots in the field"],
    },
    Phrases {
        noun: "apple",
        trained: &[
            "fruit that keeps the doctor away",
            "fruit that fell on the head of Newton",
            "fruit that is used to make cider",
            "fruit that Snow White ate",
            "fruit that people bake in a pie",
        ],
        held_out: &["fruit that is used to make a pie", "fruit that people eat to keep the doctor away"],
    },
    Phrases {
        noun: "orange",
        trained: &[
            "fruit that is full of vitamin C",
            "fruit that shares its name with a color",
            "fruit that people squeeze for juice at breakfast",
            "citrus fruit",
            "fruit with a thick peel that is full of juice",
        ],
        held_out: &["citrus fruit that people squeeze", "citrus fruit full of juice and vitamin C"],
    },
    Phrases {
        noun: "peach",
        trained: &[
            "fruit with a fuzzy skin",
            "soft fruit with a stone inside",
            "pink fruit with soft skin",
            "fuzzy fruit with a stone",
            "soft pink fruit",
        ],
        held_out: &["soft fruit with a fuzzy skin", "pink fruit with a stone inside"],
    },
    Phrases {
        noun: "strawberry",
        trained: &[
            "fruit with seeds on the outside",
            "berry that people eat with cream",
            "red berry with many seeds",
            "berry that is used to make red jam",
            "berry with green leaves on its top",
        ],
        held_out: &["berry with seeds on the outside", "red fruit that is used to make jam"],
    },
    Phrases {
        noun: "banana",
        trained: &[
            "fruit that monkeys love",
            "long yellow fruit",
            "yellow fruit that monkeys eat",
            "fruit with a long yellow peel",
            "curved fruit",
        ],
        held_out: &["curved fruit that monkeys eat", "fruit with a yellow skin"],
    },
    Phrases {
        noun: "knife",
        trained: &[
            "tool that is used to cut cakes",
            "tool used to cut cakes",
            "tool used to slice bread",
            "sharp tool of the kitchen",
            "tool that cooks use to cut meat",
            "tool with one sharp blade",
        ],
        held_out: &["tool that is used to slice meat", "kitchen tool with one blade"],
    },
    Phrases {
        noun: "scissors",
        trained: &[
            "tool used to cut paper",
            "tool that is used to cut hair",
            "tool that barbers use to cut hair",
            "tool with two blades",
            "tool that people use to cut cloth",
        ],
        held_out: &["tool that is used to cut paper", "tool with two blades for cloth"],
    },
    Phrases {
        noun: "spoon",
        trained: &[
            "tool used to eat soup",
            "tool that is used to eat soup",
            "tool that people use to stir tea",
            "tool used to eat ice cream",
            "tool for yogurt and soup",
        ],
        held_out: &["tool that is used to stir soup", "tool that people use to eat yogurt"],
    },
    Phrases {
        noun: "clock",
        trained: &[
            "object that can tell the time",
            "object that wakes people up in the morning",
            "object with hands that shows the hours",
            "thing that rings in the morning",
            "object that shows what time it is",
            "thing with two hands and numbers",
        ],
        held_out: &["thing that can tell the hours", "object that rings and wakes people up"],
    },
    Phrases {
        noun: "cake",
        trained: &[
            "food that is eaten on a birthday",
            "sweet food with cream",
            "dessert that people eat at a wedding",
            "dessert that people bake for a birthday",
            "sweet dessert with layers of cream",
        ],
        held_out: &["dessert that is eaten on a birthday", "sweet food that people bake"],
    },
    Phrases {
        noun: "book",
        trained: &[
            "object that people read",
            "object with many pages",
            "thing that people borrow from a library",
            "object that tells a story",
            "thing that writers write",
        ],
        held_out: &["thing with pages that people read", "object from a library"],
    },
    Phrases {
        noun: "car",
        trained: &[
            "vehicle that people drive on the road",
            "vehicle with four wheels",
            "object that people drive to work",
            "thing that people park in a garage",
            "thing that needs gasoline",
        ],
        held_out: &["vehicle that people park in a garage", "object with four wheels that people drive"],
    },
    Phrases {
        noun: "ball",
        trained: &[
            "object that players kick",
            "thing used to play football",
            "object that rolls and bounces",
            "thing that players kick into the goal",
            "round object that players catch",
        ],
        held_out: &["round thing that bounces and rolls", "thing that players use to play football"],
    },
    Phrases {
        noun: "umbrella",
        trained: &[
            "object that keeps people dry in the rain",
            "thing that people open when it rains",
            "object that protects people from the rain",
            "thing that people carry on a rainy day",
            "object that is used in the rain",
        ],
        held_out: &["thing that keeps people dry on a rainy day", "object that people open in the rain"],
    },
];
