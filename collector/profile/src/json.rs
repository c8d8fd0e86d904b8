//! JSON: telling the formats that use it apart, and numbers that mean amounts.

use serde::{Deserialize, de::IgnoredAny};
use serde_json::Number;

use crate::{Format, ProfileError, bounds};

/// The most values of a text that become entries of 16 bytes or less, of as many as a file of the largest content has.
const VALUES: usize = 16 << 20;

/// Whether this starts like a JSON object.
pub(crate) fn is_object(content: &[u8]) -> bool {
    let inside = content.trim_ascii_start().strip_prefix(b"{").map(<[u8]>::trim_ascii_start);
    inside.is_some_and(|inside| matches!(inside.first(), Some(b'"' | b'}')))
}

/// What the members of the outermost object say about the format.
#[derive(Deserialize)]
struct Members {
    profiles: Option<IgnoredAny>,
    shared: Option<IgnoredAny>,
    meta: Option<IgnoredAny>,
    threads: Option<IgnoredAny>,
}

/// The format of a JSON text.
///
/// # Errors
/// [`ProfileError::Json`] if it is damaged, [`ProfileError::UnknownContent`] if it is something else.
pub(crate) fn format(content: &[u8]) -> Result<Format, ProfileError> {
    let members: Members =
        serde_json::from_slice(content).map_err(|error| ProfileError::Json { reason: error.to_string() })?;
    match members {
        Members { meta: Some(_), threads: Some(_), .. } => Ok(Format::Firefox),
        Members { profiles: Some(_), shared: Some(_), .. } => Ok(Format::Speedscope),
        _ => Err(ProfileError::unknown_content(content)),
    }
}

/// Checks that a text is not too large to be taken apart, by its length and by how many objects, arrays and values it has,
/// which are what takes memory then.
///
/// # Errors
/// [`ProfileError::TooLarge`] if it is.
pub(crate) fn check_size(content: &[u8]) -> Result<(), ProfileError> {
    bounds::content(content.len())?;
    let (mut objects, mut arrays, mut values) = (0, 0, 0);
    let mut bytes = content.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'{' => objects += 1,
            b'[' => arrays += 1,
            b',' => values += 1,
            b'"' => skip_text(&mut bytes),
            _ => {}
        }
    }
    bounds::entries("objects", objects)?;
    bounds::positions("arrays", arrays)?;
    bounds::within("values", values, VALUES)
}

/// Goes on behind the quotation mark that ends a text.
fn skip_text<'b>(bytes: &mut impl Iterator<Item = &'b u8>) {
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return,
            b'\\' => drop(bytes.next()),
            _ => {}
        }
    }
}

/// An amount, multiplied by `scale` and rounded to a whole number. Whole numbers are exact.
pub(crate) fn amount(number: &Number, scale: u64) -> Option<u64> {
    if let Some(whole) = number.as_u64() {
        return whole.checked_mul(scale);
    }
    let scaled = (number.as_f64()? * scale as f64).round();
    // 2⁶⁴ is the first number that does not fit. What is not a number is in no range.
    (0.0..18_446_744_073_709_551_616.0).contains(&scaled).then_some(scaled as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_exact_or_rounded_or_refused() {
        let amount = |text: &str, scale| amount(&text.parse().unwrap(), scale);
        assert_eq!(amount("18446744073709551615", 1), Some(u64::MAX));
        assert_eq!(amount("18446744073709551616", 1), None);
        assert_eq!(amount("18446744073709551615", 2), None);
        assert_eq!(amount("1.0000015", 1_000_000), Some(1_000_002));
        assert_eq!(amount("-0.0", 1), Some(0));
        assert_eq!(amount("-1", 1), None);
        assert_eq!(amount("1e300", 1), None);
    }

    #[test]
    fn what_is_in_texts_does_not_count() {
        let arrays = |array: &str, count: usize| format!("[{}0]", format!("{array},").repeat(count));
        let most = 7 << 18;
        assert!(check_size(arrays("[]", most - 1).as_bytes()).is_ok());
        let refused = check_size(arrays("[]", most).as_bytes());
        assert!(matches!(refused, Err(ProfileError::TooLarge { what: "arrays", .. })), "{refused:?}");
        assert!(check_size(arrays(r#""\"[{\\""#, most).as_bytes()).is_ok());
    }

    #[test]
    fn a_name_with_a_brace_is_no_json() {
        assert!(is_object(b" {\n \"a\": 1}"));
        assert!(is_object(b"{}"));
        assert!(!is_object(b"{closure#0};main 3"));
    }
}
