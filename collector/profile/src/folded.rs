//! Folded stacks: one line for each distinct stack of names, `oldest;…;youngest value`.
//!
//! This is what flame graph tools read (`flamegraph.pl`, inferno, speedscope and others). The names are the shown
//! ones ([`Names`]); inlined functions are frames of their own. Lines are sorted by their bytes, so that equal
//! profiles give equal files.
//!
//! # Value
//! By default the weight, in the unit of the profile's event: nanoseconds for `cpu` and `wall`, occurrences for
//! counters. Tools take any whole number there and show shares; the sum of the weights is the time or the count
//! that was measured, at any sampling rate and with missed ticks. [`Value::Samples`] writes the conventional
//! number of samples. A stack whose value is 0 has no line.
//!
//! # Names that the format cannot hold
//! | a reader takes | for | so it is written as |
//! |---|---|---|
//! | `;`, as in `<[u8; 4]>::len` | the end of a frame | `；` (U+FF1B) |
//! | the space before a number at the end, as in `operator 5` | the start of the value | a no-break space (U+00A0) |
//! | `#` alone or before a space, at the start | a comment | `＃` (U+FF03) |
//!
//! Reading turns these back; a name that had such a look-alike itself, in the same place, comes back with the plain
//! character. Line breaks cannot occur in a shown name.

use std::{
    cmp::Ordering,
    collections::HashMap,
    io::{BufRead, BufWriter, Read, Write},
    sync::Arc,
};

use indexmap::IndexSet;

use crate::{FrameId, Names, Origin, Profile, ProfileError, Tally, bounded::BoundedProfile, bounds, names};

/// The most bytes of a line: a million frames of usual names.
const LINE: usize = 32 << 20;

const NO_BREAK_SPACE: char = '\u{a0}';

/// What the number at the end of a line is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Value {
    /// The weight, in the unit of the profile's event.
    #[default]
    Weight,
    /// The number of samples.
    Samples,
}

impl Value {
    fn of(self, tally: Tally) -> u64 {
        match self {
            Self::Weight => tally.weight,
            Self::Samples => tally.samples,
        }
    }
}

/// Writes `profile` as folded stacks.
///
/// # Errors
/// [`ProfileError::Io`] if `output` fails.
pub fn write(profile: &Profile, value: Value, output: impl Write) -> Result<(), ProfileError> {
    let names = Names::new(profile);
    // Two names may become one by escaping.
    let mut escaped: IndexSet<String> = IndexSet::new();
    let of_name: Vec<usize> = names.all().map(|name| escaped.insert_full(escape(name)).0).collect();

    let mut values: HashMap<Vec<usize>, u64> = HashMap::new();
    for stack in profile.stacks().filter(|stack| value.of(stack.tally) > 0) {
        let key = stack.frames.iter().map(|&frame| of_name[names.id(frame).index()]).collect();
        *values.entry(key).or_default() += value.of(stack.tally);
    }
    let mut lines: Vec<_> = values.into_iter().collect();
    lines.sort_unstable_by(|(a, _), (b, _)| compare(a, b, &escaped));

    let mut output = BufWriter::new(output);
    for (stack, value) in lines {
        let mut separator = "";
        for name in stack {
            write!(output, "{separator}{}", escaped[name])?;
            separator = ";";
        }
        writeln!(output, " {value}")?;
    }
    output.flush()?;
    Ok(())
}

/// Orders stacks as the bytes of their lines, without building the lines: those of deep stacks are long.
fn compare(a: &[usize], b: &[usize], names: &IndexSet<String>) -> Ordering {
    let shared = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    line_bytes(&a[shared..], names).cmp(line_bytes(&b[shared..], names))
}

/// What follows in a line after an older frame.
fn line_bytes(stack: &[usize], names: &IndexSet<String>) -> impl Iterator<Item = u8> {
    stack.iter().flat_map(|&name| b";".iter().chain(names[name].as_bytes())).copied()
}

/// Reads folded stacks. Each line's value becomes the weight of its stack; the numbers of samples are not in the
/// file and stay 0. Metadata is the default: who knows the event sets it.
///
/// `[host] …`, `[builtin] …` and `[truncated]` become frames of their kinds, everything else guest functions. Blank
/// lines and lines that start with `# ` are skipped; bytes that are not UTF-8 become `�`.
///
/// # Errors
/// [`ProfileError::FoldedLine`] for any other line that is not a stack and one whole number,
/// [`ProfileError::Overflow`] if the sum exceeds 64 bits, [`ProfileError::TooLarge`] if it would take too much memory,
/// [`ProfileError::Io`] if `input` fails.
pub fn read(mut input: impl BufRead) -> Result<Profile, ProfileError> {
    let mut profile = BoundedProfile::default();
    let mut ids: HashMap<Arc<str>, FrameId> = HashMap::new();
    let mut bytes = Vec::new();
    let mut number = 0;
    loop {
        bytes.clear();
        if (&mut input).take(LINE as u64 + 1).read_until(b'\n', &mut bytes)? == 0 {
            return Ok(profile.into_profile());
        }
        bounds::within("bytes in a line", bytes.len(), LINE)?;
        number += 1;
        let text = String::from_utf8_lossy(&bytes);
        let line = text.trim();
        if line.is_empty() || line.starts_with("# ") {
            continue;
        }
        let (stack, weight) = parse(line).map_err(|reason| ProfileError::FoldedLine {
            line: number,
            reason,
            text: line.chars().take(200).collect(),
        })?;
        let mut frames = Vec::new();
        for name in stack.split(';') {
            let id = match ids.get(name) {
                Some(&id) => id,
                None => {
                    let id = profile.intern(names::parse(&unescape(name)))?;
                    ids.insert(profile.text(name)?, id);
                    id
                }
            };
            frames.push(id);
        }
        profile.add_from(&frames, Origin::default(), Tally { samples: 0, weight })?;
    }
}

fn parse(line: &str) -> Result<(&str, u64), &'static str> {
    let (stack, value) = line.rsplit_once(' ').ok_or("no value after the stack")?;
    if !value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("the value is not a whole number");
    }
    let value = value.parse().map_err(|_| "the value does not fit 64 bits")?;
    let stack = stack.trim_end();
    if stack.rsplit_once(' ').is_some_and(|(_, word)| is_number(word)) {
        return Err("two values, as in a comparison of two profiles");
    }
    Ok((stack, value))
}

fn is_number(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
}

fn escape(name: &str) -> String {
    let name = replace_last_space(name.replace(';', "；"), ' ', NO_BREAK_SPACE);
    replace_first_hash(name, '#', '＃')
}

/// Undoes [`escape`], in the opposite order.
fn unescape(name: &str) -> String {
    let name = replace_first_hash(name.to_owned(), '＃', '#');
    replace_last_space(name, NO_BREAK_SPACE, ' ').replace('；', ";")
}

/// Replaces the space that would make the number behind it look like a value.
fn replace_last_space(name: String, from: char, to: char) -> String {
    match name.rsplit_once(from) {
        Some((start, word)) if is_number(word) => format!("{start}{to}{word}"),
        _ => name,
    }
}

/// Replaces the `#` that would make a line look like a comment: alone, or before a space.
fn replace_first_hash(name: String, from: char, to: char) -> String {
    match name.strip_prefix(from) {
        Some(rest) if rest.is_empty() || rest.starts_with(' ') => format!("{to}{rest}"),
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::Frame;

    fn written(profile: &Profile, value: Value) -> String {
        let mut bytes = Vec::new();
        write(profile, value, &mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    fn profile(stacks: &[(&[&str], u64, u64)]) -> Profile {
        let mut profile = Profile::default();
        for &(names, samples, weight) in stacks {
            let frames: Vec<_> = names.iter().map(|&name| profile.intern(Frame::guest(name))).collect();
            profile.add(&frames, Tally { samples, weight }).unwrap();
        }
        profile
    }

    #[test]
    fn lines_are_sorted_and_merged_by_name() {
        let mut profile =
            profile(&[(&["a", "b"], 1, 10), (&["a"], 2, 20), (&["a-b", "c"], 3, 30), (&["a", "z"], 4, 0)]);
        let a = profile.intern(Frame { bytecode_offset: Some(4), ..Frame::guest("a") });
        let b = profile.intern(Frame { inlined: true, ..Frame::guest("b") });
        profile.add(&[a, b], Tally { samples: 1, weight: 5 }).unwrap();
        assert_eq!(written(&profile, Value::Weight), "a 20\na-b;c 30\na;b 15\n");
        assert_eq!(written(&profile, Value::Samples), "a 2\na-b;c 3\na;b 2\na;z 4\n");
    }

    #[test]
    fn names_that_the_format_cannot_hold_are_replaced_and_restored() {
        let names: &[&str] = &["# main", "<[u8; 4]>::len", "two\nlines", "operator 5"];
        let text = written(&profile(&[(names, 1, 7)]), Value::Weight);
        assert_eq!(text, "＃ main;<[u8； 4]>::len;two␊lines;operator\u{a0}5 7\n");
        let back = read(text.as_bytes()).unwrap();
        let shown: Vec<_> = back.frames().map(|(_, frame)| frame.name.to_string()).collect();
        assert_eq!(shown, ["# main", "<[u8; 4]>::len", "two␊lines", "operator 5"]);
    }

    #[test]
    fn kinds_are_read_back() {
        let text = "[truncated];main;[host] env.now 4\nmain;[builtin] memory.grow 2\n";
        let profile = read(text.as_bytes()).unwrap();
        let frames: Vec<_> = profile.frames().map(|(_, frame)| frame.clone()).collect();
        let host = Frame::new(crate::FrameKind::HostCall, "env.now");
        assert_eq!(frames, [Frame::truncated(), Frame::guest("main"), host, Frame::builtin("memory.grow")]);
        assert_eq!(written(&profile, Value::Weight), text);
    }

    #[test]
    fn lines_from_elsewhere() {
        let profile = read(&b"# comment\r\n\r\nmain;f\xff 3\r\n  main;f\xff   4"[..]).unwrap();
        assert_eq!(written(&profile, Value::Weight), "main;f\u{fffd} 7\n");
        assert_eq!(profile.total(), Tally { samples: 0, weight: 7 });
    }

    #[test]
    fn lines_that_are_none_are_refused_by_number() {
        for (text, wrong, expected) in [
            ("a 1\nb\n", 2, "no value after the stack"),
            ("\n\na;b x\n", 3, "the value is not a whole number"),
            ("a 1.5\n", 1, "the value is not a whole number"),
            ("a 99999999999999999999\n", 1, "the value does not fit 64 bits"),
            ("a;b 10 12\n", 1, "two values, as in a comparison of two profiles"),
        ] {
            match read(text.as_bytes()) {
                Err(ProfileError::FoldedLine { line, reason, .. }) => {
                    assert_eq!((line, reason), (wrong, expected))
                }
                other => panic!("{text:?} gives {other:?}"),
            }
        }
        let overflow = read(format!("a {}\nb 1\n", u64::MAX).as_bytes());
        assert!(matches!(overflow, Err(ProfileError::Overflow { what: "weight", .. })));
    }

    /// Any text, with what the format treats specially more often than chance would.
    fn name() -> impl Strategy<Value = String> {
        prop_oneof![any::<String>(), "[ab;# 0-9.\n\\[\\]-]{0,6}", Just("[host] x".to_owned())]
    }

    proptest! {
        #[test]
        fn a_profile_survives_a_round_trip(stacks in vec((vec(name(), 1..5), 1_u64..1000), 0..20)) {
            let mut profile = Profile::default();
            for (names, weight) in &stacks {
                let frames: Vec<_> =
                    names.iter().map(|name| profile.intern(Frame::guest(name.as_str()))).collect();
                profile.add(&frames, Tally { samples: 1, weight: *weight })?;
            }
            let text = written(&profile, Value::Weight);
            let back = read(text.as_bytes())?;
            prop_assert_eq!(back.total().weight, profile.total().weight);
            prop_assert_eq!(written(&back, Value::Weight), text.as_str());

            let lines: Vec<&str> = text.lines().collect();
            let mut stacks: Vec<&str> = lines.iter().filter_map(|line| Some(line.rsplit_once(' ')?.0)).collect();
            prop_assert!(stacks.is_sorted());
            stacks.dedup();
            prop_assert_eq!(stacks.len(), lines.len(), "a stack has two lines");
        }

        #[test]
        fn any_bytes_give_a_profile_or_an_error(bytes in vec(any::<u8>(), 0..200)) {
            let _ = read(bytes.as_slice());
        }
    }
}
