//! A function's name without what compilers and linkers number anew in each build.
//!
//! | part | example |
//! |---|---|
//! | hash of a Rust function or crate | `core::fmt::write::h0123456789abcdef`, `core[0123456789abcdef]::fmt::write` |
//! | suffix of a copy or part | `f.llvm.123`, `f.part.0`, `f.constprop.0`, `f.isra.0`, `f (.cold)`, `f [clone .cold]`, `f.1234` |
//! | number of something without a name | `{closure#3}`, `{lambda(int)#2}`, `'lambda0'(int)`, `$_3`, `__anon_71`, `main.func2` |
//!
//! Two functions of one build may share such a name. It says which functions of two builds may be the same one, not
//! which are.

/// What a linker or compiler appends to the name of a copy or of a part, before an optional number.
const SUFFIXES: [&str; 9] =
    [".llvm", ".part", ".constprop", ".isra", ".cold", ".lto_priv", ".specialized", ".resume", ".destroy"];
/// What comes before the number of something that has no name in the source.
const NUMBERED: [&str; 6] = ["$_", "__anon_", "__struct_", "'lambda", ".func", "~anonymous|"];
/// The fewest digits of a crate's hash: a shorter number in brackets may be part of a type.
const CRATE_HASH_DIGITS: usize = 8;

/// The name without what a rebuild may change.
pub(super) fn stable_name(name: &str) -> String {
    let mut rest = name;
    while let Some(shorter) = without_suffix(rest) {
        rest = shorter;
    }
    without_numbers(rest)
}

/// Without one suffix at the end, if there is one and something before it.
fn without_suffix(name: &str) -> Option<&str> {
    let name = name.trim_end();
    if let Some(start) = name.strip_suffix(')').and_then(|inner| inner.rfind(" (.")) {
        return nonempty(&name[..start]);
    }
    if let Some(start) = name.strip_suffix(']').and_then(|inner| inner.rfind(" [clone ")) {
        return nonempty(&name[..start]);
    }
    if let Some((before, hash)) = name.rsplit_once("::h")
        && hash.len() == 16
        && is_hex(hash)
    {
        return nonempty(before);
    }
    let bare = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let numbered = bare.len() < name.len();
    if let Some(before) = bare.strip_suffix('.').filter(|_| numbered) {
        return nonempty(before);
    }
    SUFFIXES.iter().find_map(|suffix| name.strip_suffix(suffix)).and_then(nonempty)
}

fn nonempty(name: &str) -> Option<&str> {
    Some(name).filter(|name| !name.is_empty())
}

/// Without the hashes of crates, and without the numbers of closures and the like.
fn without_numbers(name: &str) -> String {
    let mut stable = String::with_capacity(name.len());
    let mut braces = 0_usize;
    let mut rest = name;
    while let Some(c) = rest.chars().next() {
        match c {
            '{' => braces += 1,
            '}' => braces = braces.saturating_sub(1),
            '[' if stable.ends_with(|c: char| c.is_alphanumeric() || c == '_') => {
                if let Some((hash, after)) = rest[1..].split_once(']')
                    && hash.len() >= CRATE_HASH_DIGITS
                    && is_hex(hash)
                {
                    rest = after;
                    continue;
                }
            }
            _ => {}
        }
        stable.push(c);
        rest = &rest[c.len_utf8()..];
        let numbered = (c == '#' && braces > 0) || NUMBERED.iter().any(|before| stable.ends_with(before));
        if numbered {
            rest = rest.trim_start_matches(|c: char| c.is_ascii_digit());
        }
    }
    stable
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_a_rebuild_numbers_goes() {
        for (name, stable) in [
            ("core::fmt::write::h0123456789abcdef", "core::fmt::write"),
            ("core[8f4b1c2d3e4f5a6b]::fmt::write", "core::fmt::write"),
            (
                "<alloc[00000000deadbeef]::vec::Vec<u8> as core[1234567890abcdef]::clone::Clone>::clone",
                "<alloc::vec::Vec<u8> as core::clone::Clone>::clone",
            ),
            ("f.llvm.1234567", "f"),
            ("f.part.0.isra.3", "f"),
            ("f.constprop.0 (.cold)", "f"),
            ("f(int) [clone .part.0]", "f(int)"),
            ("f.cold", "f"),
            ("f.1234", "f"),
            ("app::run::{closure#12}", "app::run::{closure#}"),
            ("app::run::{{closure}}", "app::run::{{closure}}"),
            (
                "sort()::{lambda(int)#2}::operator()(int) const",
                "sort()::{lambda(int)#}::operator()(int) const",
            ),
            ("sort()::'lambda0'(int)", "sort()::'lambda'(int)"),
            ("sort()::$_3::operator()() const", "sort()::$_::operator()() const"),
            ("main.func2", "main.func"),
            ("main.func2.1", "main.func"),
            ("hash_map.AutoHashMap__anon_1234.get", "hash_map.AutoHashMap__anon_.get"),
        ] {
            assert_eq!(stable_name(name), stable, "{name}");
        }
    }

    #[test]
    fn everything_else_stays() {
        for name in [
            "f",
            "",
            "7",
            ".7",
            "f2",
            "utf8",
            "a::h123",
            "<[u8; 16]>::len",
            "array[12]",
            "f#3",
            "std::vector<int, std::allocator<int>>::push_back(int&&)",
            "operator.",
            "漢字.字",
        ] {
            assert_eq!(stable_name(name), name);
        }
    }

    proptest! {
        #[test]
        fn any_name_has_a_stable_one(name in "[a-f0-9.#{}\\[\\]:h (漢$_']{0,40}") {
            let stable = stable_name(&name);
            prop_assert!(stable.len() <= name.len());
            prop_assert_eq!(stable.is_empty(), name.trim_end().is_empty() && name.is_empty());
        }
    }
}
