//! SPDX expressions, as far as crates write them.

/// Licences that ask for no more than a notice; `deny.toml` has the same list.
const PERMISSIVE: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Whether the expression can be satisfied with permissive licences alone. `/` is an old spelling of OR.
pub fn is_permissive(expression: &str) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let mut tokens = spaced.split_whitespace().peekable();
    let result = alternatives(&mut tokens);
    result && tokens.next().is_none()
}

type Tokens<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn alternatives(tokens: &mut Tokens) -> bool {
    let mut result = conjunction(tokens);
    while tokens.next_if_eq(&"OR").is_some() {
        result |= conjunction(tokens);
    }
    result
}

fn conjunction(tokens: &mut Tokens) -> bool {
    let mut result = term(tokens);
    while tokens.next_if_eq(&"AND").is_some() {
        result &= term(tokens);
    }
    result
}

fn term(tokens: &mut Tokens) -> bool {
    match tokens.next() {
        Some("(") => {
            let result = alternatives(tokens);
            tokens.next_if_eq(&")").is_some() && result
        }
        Some(licence) => {
            let exception = tokens.next_if_eq(&"WITH").and_then(|_| tokens.next());
            let full =
                exception.map_or(licence.to_owned(), |exception| format!("{licence} WITH {exception}"));
            PERMISSIVE.contains(&full.as_str())
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::is_permissive;

    #[test]
    fn expressions() {
        for good in [
            "MIT",
            "Apache-2.0 OR MIT",
            "MIT/Apache-2.0",
            "(MIT OR GPL-2.0) AND Unicode-3.0",
            "GPL-3.0 OR ISC",
        ] {
            assert!(is_permissive(good), "{good}");
        }
        for bad in ["GPL-2.0", "MIT AND GPL-2.0", "(MIT", "Apache-2.0 WITH Commons-Clause", ""] {
            assert!(!is_permissive(bad), "{bad}");
        }
    }
}
