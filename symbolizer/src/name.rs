//! How a function's name is shown.
//!
//! One style for all sources, so that a function has the same name whether a frame is the function itself
//! (named by the name section) or an inlined copy of it (named by DWARF):
//!
//! - Rust: the path without the hash, `core::slice::sort::stable::driftsort`;
//! - C++: with parameters and template arguments, without the return type, `geo::scale<int>(int, int)`;
//! - everything else as it is.
//!
//! Linkers write C++ names into the name section demangled, with the return types of function templates:
//! these are cut off.

use std::fmt::{self, Write};

/// Longer names are cut: no compiler's demangled names come near, and flame graphs have no room for them.
const LONGEST_NAME: usize = 4096;

/// The longest mangled name that is tried.
const LONGEST_MANGLED_NAME: usize = 64 * 1024;

/// How all demanglers print the scope of what has internal linkage.
const ANONYMOUS: &str = "(anonymous namespace)";

/// The name to show for a name as the binary has it.
pub(crate) fn display_name(raw: &str) -> String {
    let mut name = BoundedName::default();
    if raw.len() <= LONGEST_MANGLED_NAME && demangle(raw, &mut name).is_some() {
        return name.text;
    }
    // Nothing can be written that was not, on overflow what fits stays.
    let _ = name.replace(strip_rust_hash(strip_return_type(raw)));
    name.text
}

/// Whether a name is the mangled name of a C++ function.
pub(crate) fn is_cpp_mangled(raw: &str) -> bool {
    raw.starts_with("_Z") && rust_symbol(raw).is_none()
}

/// Whether a demangled name, by whichever demangler, is that of the function with the shown name `display`:
/// demanglers differ in how they print lambdas, anonymous namespaces and literals, not in identifiers.
pub(crate) fn is_demangled_form_of(demangled: &str, display: &str) -> bool {
    let identifier = base_identifier(display);
    !identifier.is_empty() && demangled.contains(identifier)
}

fn demangle(raw: &str, into: &mut BoundedName) -> Option<()> {
    if let Some(symbol) = rust_symbol(raw) {
        return into.fill(|text| write!(text, "{symbol:#}"));
    }
    if !raw.starts_with("_Z") {
        return None;
    }
    // LLVM renames functions that it promotes: `_Z3foov.llvm.123`.
    let mangled = raw.split_once(".llvm.").map_or(raw, |(mangled, _)| mangled);
    fill_cpp(mangled, into).or_else(|| fill_cpp(&without_parameter_declarations(mangled)?, into))
}

fn fill_cpp(mangled: &str, into: &mut BoundedName) -> Option<()> {
    let parsing = cpp_demangle::ParseOptions::default().recursion_limit(128);
    let symbol = cpp_demangle::Symbol::new_with_options(mangled.as_bytes(), &parsing).ok()?;
    let style = cpp_demangle::DemangleOptions::new().no_return_type().recursion_limit(128);
    into.fill(|text| symbol.structured_demangle(text, &style))
}

/// Clang 18 and later put the declared type of a constrained template parameter before its argument, as `Tn`
/// and the type, which the demangler does not know. Without the `Tn` the type reads as one more argument.
/// `None` if the name has none.
fn without_parameter_declarations(mangled: &str) -> Option<String> {
    let mut kept = String::with_capacity(mangled.len());
    let mut rest = mangled;
    while let Some(first) = rest.chars().next() {
        let before = &mangled[..mangled.len() - rest.len()];
        let length = if rest.starts_with("Tn") && !before.ends_with('D') {
            rest = &rest[2..];
            continue;
        } else {
            identifier_length(before, rest).unwrap_or(first.len_utf8())
        };
        kept.push_str(rest.get(..length)?);
        rest = &rest[length..];
    }
    (kept.len() < mangled.len()).then_some(kept)
}

/// The length of an identifier with its own length in front, if a mangled name goes on with one.
fn identifier_length(before: &str, rest: &str) -> Option<usize> {
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let length: usize = rest[..digits].parse().ok()?;
    // Numbers that are no lengths: of substitutions and parameters, in literals, arrays and discriminators.
    let mut previous = before.bytes().rev();
    let is_number = matches!(
        (previous.next(), previous.next(), previous.next()),
        (Some(b'S' | b'T' | b'A' | b'p'), ..)
            | (Some(b'_'), Some(b'E' | b'_'), _)
            | (Some(b'a'..=b'z'), Some(b'L'), _)
            | (Some(b'n'), Some(b'a'..=b'z'), Some(b'L'))
    );
    (!is_number).then_some(digits.checked_add(length)?)
}

/// Rust's own demangler accepts every `_ZN…E`; only those with a hash at the end are Rust's.
fn rust_symbol(raw: &str) -> Option<rustc_demangle::Demangle<'_>> {
    if raw.starts_with("_R") {
        return rustc_demangle::try_demangle(raw).ok();
    }
    let path = raw.strip_prefix("_ZN")?;
    let path = path.split_once(".llvm.").map_or(path, |(path, _)| path).strip_suffix('E')?;
    let (_, hash) = path.rsplit_once("17h")?;
    is_hash(hash).then(|| rustc_demangle::try_demangle(raw).ok()).flatten()
}

fn is_hash(text: &str) -> bool {
    text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// `a::b::h0123456789abcdef`, which linkers make of Rust's legacy names, to `a::b`.
fn strip_rust_hash(name: &str) -> &str {
    match name.rsplit_once("::h") {
        Some((path, hash)) if is_hash(hash) => path,
        _ => name,
    }
}

/// `int geo::scale<int>(int, int)` to `geo::scale<int>(int, int)`.
fn strip_return_type(name: &str) -> &str {
    let bytes = name.as_bytes();
    let (mut depth, mut start, mut parameters) = (0_usize, 0, None);
    for (position, byte) in bytes.iter().enumerate() {
        match byte {
            // The words after `operator` and the brackets of `operator<` are part of the name.
            _ if depth == 0 && bytes[..position].ends_with(b"operator") => return &name[start..],
            b'(' if depth == 0 && position > start && !name[position..].starts_with(ANONYMOUS) => {
                parameters = Some(position);
                depth += 1;
            }
            b'<' | b'(' | b'[' | b'{' => depth += 1,
            b'>' | b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            b' ' if depth == 0 && parameters.is_none() => start = position + 1,
            _ => {}
        }
    }
    match parameters {
        // Only what has parameters is a C++ function; "thunk to" and the like belong to the name.
        Some(_) if !name[..start].ends_with(" to ") => &name[start..],
        _ => name,
    }
}

/// `scale` of `geo::scale<int>(int, int)`.
fn base_identifier(name: &str) -> &str {
    let is_identifier = |c: char| c.is_alphanumeric() || c == '_' || c == '~' || c == '$';
    let mut brackets = name.match_indices(['(', '<', '[']);
    let end = brackets.find(|(position, _)| !name[*position..].starts_with(ANONYMOUS));
    let end = end.map_or(name.len(), |(position, _)| position);
    let head = &name[..end];
    let start = head.rfind(|c| !is_identifier(c)).map_or(0, |before| before + 1);
    head.get(start..).unwrap_or_default()
}

/// Text that refuses to grow beyond [`LONGEST_NAME`], without control characters.
#[derive(Default)]
struct BoundedName {
    text: String,
}

impl BoundedName {
    /// `None` if the writer failed by itself; a name that was cut is good enough.
    fn fill(&mut self, write: impl FnOnce(&mut BoundedName) -> fmt::Result) -> Option<()> {
        let result = write(self);
        if result.is_err() && self.text.len() < LONGEST_NAME {
            self.text.clear();
            return None;
        }
        (!self.text.is_empty()).then_some(())
    }

    fn replace(&mut self, text: &str) -> fmt::Result {
        self.text.clear();
        self.write_str(text)
    }
}

impl Write for BoundedName {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            if self.text.len() >= LONGEST_NAME {
                return Err(fmt::Error);
            }
            self.text.push(if character.is_control() { '\u{fffd}' } else { character });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_style() {
        for (raw, shown) in [
            (
                "_ZN4core5slice4sort6stable9driftsort17h0123456789abcdefE",
                "core::slice::sort::stable::driftsort",
            ),
            ("core::slice::driftsort::h0123456789abcdef", "core::slice::driftsort"),
            ("_RNvC6_123foo3bar", "123foo::bar"),
            ("_ZN3geo5scaleIiEET_S1_S1_", "geo::scale<int>(int, int)"),
            ("int geo::scale<int>(int, int)", "geo::scale<int>(int, int)"),
            ("unsigned int geo::scale<unsigned int>(unsigned int)", "geo::scale<unsigned int>(unsigned int)"),
            ("geo::scale(int) const", "geo::scale(int) const"),
            ("(anonymous namespace)::work(int)", "(anonymous namespace)::work(int)"),
            ("void (anonymous namespace)::work<int>(int)", "(anonymous namespace)::work<int>(int)"),
            ("operator new(unsigned long)", "operator new(unsigned long)"),
            ("bool operator< <int>(int const&)", "operator< <int>(int const&)"),
            ("geo::P::operator bool() const", "geo::P::operator bool() const"),
            ("non-virtual thunk to geo::P::f()", "non-virtual thunk to geo::P::f()"),
            ("_ZN3fooEv", "foo()"),
            ("_Z3foov.llvm.12345", "foo()"),
            ("sqlite3VdbeExec", "sqlite3VdbeExec"),
            ("fd_close|wasi_snapshot_preview1", "fd_close|wasi_snapshot_preview1"),
            ("two words", "two words"),
            ("_Znonsense", "_Znonsense"),
            // template <class T, enable_if_t<…, int> = 0> void f(T), by Clang 22.
            (
                "_Z4TnTnIiTnNSt3__19enable_ifIXsr3std7is_sameIT_iEE5valueEiE4typeELi0EEvS2_",
                "TnTn<int, std::__1::enable_if<std::is_same<int, int>::value, int>::type, 0>(int)",
            ),
            ("_Z3negIidEDTntfp_ET_T0_", "neg<int, double>(int, double)"),
            ("a\nb\u{1b}[m", "a\u{fffd}b\u{fffd}[m"),
        ] {
            assert_eq!(display_name(raw), shown, "{raw:?}");
        }
    }

    #[test]
    fn names_are_bounded() {
        assert_eq!(display_name(&"é".repeat(100_000)).len(), LONGEST_NAME);
        // Substitutions that double at each step: a few bytes demangle to gigabytes.
        let bomb = format!("_Z1f1AI{}S_E", "S_IS_S_E".repeat(40));
        assert!(display_name(&bomb).len() <= LONGEST_NAME.max(bomb.len()));
    }

    #[test]
    fn demangled_forms() {
        assert!(is_demangled_form_of("int geo::scale<int>(int, int)", "geo::scale<int>(int, int)"));
        assert!(is_demangled_form_of(
            "main::'lambda'(int)::operator()(int)",
            "main::{lambda(int)#1}::operator()(int)"
        ));
        assert!(is_demangled_form_of(
            "void (anonymous namespace)::f<3>(int)",
            "(anonymous namespace)::f<(int)3>(int)"
        ));
        assert!(is_demangled_form_of("bool std::less[abi:ab12]<int>(int)", "std::less[abi:ab12]<int>(int)"));
        assert!(!is_demangled_form_of("geo::other(int)", "geo::scale<int>(int, int)"));
    }
}
