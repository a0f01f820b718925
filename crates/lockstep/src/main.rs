//! `lockstep`: the name it was called by, or its first word, chooses the personality.
fn main() {}
