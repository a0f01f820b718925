//! Values of options: numbers with units, flags, choices.

use super::options::{Kind, OptionDef};

/// What a bare number counts, and what numbers with a unit are converted to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Scale {
    /// Bytes, or a plain count.
    One,
    /// KiB.
    Kib,
    /// Sectors of 512 bytes.
    Sectors,
}

impl Scale {
    fn shift(self) -> i32 {
        match self {
            Self::One => 0,
            Self::Kib => 10,
            Self::Sectors => 9,
        }
    }
}

/// Why a value is none of its option's.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BadValue {
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub help: String,
    /// The words to choose from, if it is a choice.
    pub choices: Vec<&'static str>,
}

/// A number with an optional unit `k`, `M`, `G` or `s`, in units of `scale`, rounded up as drbdsetup does.
pub fn number(text: &str, scale: Scale) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit_shift = match &text[digits.len()..] {
        "" => scale.shift(),
        "k" | "K" => 10,
        "m" | "M" => 20,
        "g" | "G" => 30,
        "s" => 9,
        _ => return None,
    };
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    let shift = unit_shift - scale.shift();
    if shift < 0 {
        let divisor = 1_u64 << -shift;
        Some(count.div_ceil(divisor))
    } else {
        count.checked_mul(1_u64 << shift)
    }
}

/// Checks a value; returns it as it is to be kept (`protocol c` becomes `C`).
///
/// # Errors
/// What is wrong with it and what would be right.
pub fn check(option: &OptionDef, value: &str) -> Result<String, BadValue> {
    let bad = |message: String, help: String| BadValue { message, help, choices: Vec::new() };
    match option.kind {
        Kind::Number { min, max, scale, unit, .. } => {
            let range = range_text(min, max, unit);
            let Some(number) = number(value, scale) else {
                return Err(bad(
                    format!("`{value}` is not a number"),
                    format!("`{}` takes {range}; units are k, M, G, and s for sectors", option.name),
                ));
            };
            if (min..=max).contains(&number) {
                Ok(value.to_owned())
            } else {
                Err(bad(
                    format!("`{} {value}` is out of range", option.name),
                    format!("`{}` takes {range}", option.name),
                ))
            }
        }
        Kind::Flag { .. } => match value {
            "yes" | "no" => Ok(value.to_owned()),
            _ => Err(bad(
                format!("`{value}` is neither yes nor no"),
                format!("write `{};`, `{0} yes;` or `{0} no;`", option.name),
            )),
        },
        Kind::Choice(choices) => {
            let is_node = option.name == "after-sb-0pri" && value.starts_with("discard-node-");
            if is_node || choices.iter().any(|&(name, _)| name == value) {
                return Ok(value.to_owned());
            }
            let choices: Vec<_> = choices.iter().map(|&(name, _)| name).collect();
            let help = format!("`{}` is one of {}", option.name, choices.join(", "));
            Err(BadValue { message: format!("`{value}` is not a value of `{}`", option.name), help, choices })
        }
        Kind::Protocol => match value {
            "A" | "a" | "B" | "b" | "C" | "c" => Ok(value.to_ascii_uppercase()),
            _ => Err(bad(
                format!("unknown protocol `{value}`"),
                "`protocol` is A (asynchronous), B (semi-synchronous) or C (synchronous)".into(),
            )),
        },
        Kind::Text { bytes_max } if value.len() > bytes_max => Err(bad(
            format!("value of `{}` is {} bytes long", option.name, value.len()),
            format!("`{}` takes at most {bytes_max} bytes", option.name),
        )),
        Kind::Text { .. } | Kind::Forgotten => Ok(value.to_owned()),
    }
}

/// `1 to 600 tenths of a second`.
fn range_text(min: u64, max: u64, unit: &str) -> String {
    let blank = if unit.is_empty() { "" } else { " " };
    format!("{min} to {max}{blank}{unit}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Scale, number};

    #[test]
    fn units_as_drbdsetup_has_them() {
        for (text, scale, expected) in [
            ("30M", Scale::Kib, Some(30 << 10)),
            ("30m", Scale::Kib, Some(30 << 10)),
            ("250", Scale::Kib, Some(250)),
            ("250k", Scale::Kib, Some(250)),
            ("1s", Scale::Kib, Some(1)),
            ("3s", Scale::Kib, Some(2)),
            ("100", Scale::Sectors, Some(100)),
            ("50k", Scale::Sectors, Some(100)),
            ("1G", Scale::One, Some(1 << 30)),
            ("4K", Scale::One, Some(4096)),
            ("", Scale::One, None),
            ("M", Scale::One, None),
            ("-1", Scale::One, None),
            ("1x", Scale::One, None),
            ("99999999999G", Scale::One, None),
            ("99999999999999999999", Scale::One, None),
        ] {
            assert_eq!(number(text, scale), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,24}") {
            for scale in [Scale::One, Scale::Kib, Scale::Sectors] {
                let _ = number(&text, scale);
            }
        }
    }
}
