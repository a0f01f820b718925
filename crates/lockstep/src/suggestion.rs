//! Which known word a mistyped one was probably meant to be.

/// The candidate with the fewest edits from `word`, if those are few enough to be a slip of the hand.
pub fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // Names are short; a word much longer than any of them is no slip, and its distance is not worth computing.
    const WORD_CHARS_MAX: usize = 64;
    if word.chars().count() > WORD_CHARS_MAX {
        return None;
    }
    let (edits, candidate) = candidates.map(|c| (edits(word, c), c)).min()?;
    (edits <= 1 + candidate.len() / 4).then_some(candidate)
}

/// Levenshtein distance in characters.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn a_slip_is_recognised_and_a_stranger_is_not() {
        let names = ["drbdadm", "nova", "lab"];
        assert_eq!(nearest("drbdamd", names.into_iter()), Some("drbdadm"));
        assert_eq!(nearest("nvoa", names.into_iter()), Some("nova"));
        assert_eq!(nearest("gluster", names.into_iter()), None);
        assert_eq!(nearest(&"x".repeat(4096), names.into_iter()), None);
    }
}
