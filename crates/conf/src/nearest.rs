//! Which word was meant.

/// The candidate that is fewest typing errors away from `word`, if that is few enough to be worth saying.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (word.chars().count() / 3).clamp(1, 3);
    candidates
        .into_iter()
        .map(|candidate| (errors_between(word, candidate), candidate))
        .filter(|&(errors, _)| errors <= allowed)
        .min_by_key(|&(errors, _)| errors)
        .map(|(_, candidate)| candidate)
}

/// Letters to insert, drop, replace, or exchange with their neighbour (restricted Damerau-Levenshtein distance).
fn errors_between(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut next = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = row[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            next[j] = replaced.min(row[j] + 1).min(next[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                next[j] = next[j].min(before[j - 2] + 1);
            }
        }
        before = row;
        row = next;
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn typing_errors_are_seen_through_and_other_words_are_not() {
        let words = ["timeout", "ping-int", "ping-timeout", "ko-count"];
        assert_eq!(nearest("timeuot", words), Some("timeout"));
        assert_eq!(nearest("pin-int", words), Some("ping-int"));
        assert_eq!(nearest("ping_timeout", words), Some("ping-timeout"));
        assert_eq!(nearest("quorum", words), None);
        assert_eq!(nearest("", words), None);
    }
}
