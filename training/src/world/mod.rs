//! The emoji world: scenes, instructions, and the pictures they ask for.
