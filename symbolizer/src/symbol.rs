//! What the names in an image's symbol table mean.
//!
//! Wasmtime names every function that it compiles. The name alone decides what the function is for a stack
//! walk: whether it is a frame of the guest, and whether it saves the guest's exit state.
//!
//! | symbol | kind | why |
//! |---|---|---|
//! | `wasm[M]::function[F]`, `…::name` | guest | a function of core module M |
//! | `module_start[M]::Wasm` | guest | evaluates M's initializers; calls out through builtins |
//! | `unsafe-intrinsics-wasm-call-…` | guest | loads and stores, saves no exit state |
//! | `wasm[M]::array_to_wasm_trampoline[F]`, `module_start[M]::Array`, `…-array-call-…` | entry | `array_to_wasm` |
//! | `wasm[M]::native_to_wasm_trampoline[F]` | entry | the same, in versions up to 24 |
//! | `signatures[T]::wasm_to_array_trampoline`, `resource_drop_trampoline` | exit | `wasm_to_array` |
//! | `signatures[T]::wasm_to_native_trampoline` | exit | the same, in versions up to 24 |
//! | `component-trampolines[I]-wasm-call-component-lower-import[N]` | exit | calls an import of the component |
//! | `component-trampolines[I]-wasm-call-…` | builtin | calls the runtime; saves exit state like an exit |
//! | `wasmtime_builtin_…`, `wasmtime_patchable_builtin_…` | builtin | calls the runtime |

use flamewalk_handler::code::CodeKind;

/// The meaning of one symbol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Symbol {
    /// Function `function` (imports included) of the core module `module`.
    Function { module: u32, function: u32 },
    /// The code that initializes core module `module`.
    ModuleStart { module: u32 },
    /// One of the operations that Wasmtime can offer to a component on the host's memory.
    UnsafeIntrinsic { name: Box<str> },
    /// From the host into the guest.
    Entry,
    /// To a function of the host; which one, only the call site knows.
    Exit,
    /// To the destructor of one of the host's resources.
    ResourceDrop,
    /// Trampoline `trampoline` of a component: to the host's function behind the `lowering`th lowered import.
    LoweredImport { trampoline: u32, lowering: u32 },
    /// Trampoline `trampoline` of a component: to the runtime.
    ComponentBuiltin { trampoline: u32, name: Box<str> },
    /// To the runtime.
    Builtin { name: Box<str> },
}

impl Symbol {
    /// The meaning of a symbol's name, `None` if no version of Wasmtime known here writes such a name.
    pub(crate) fn parse(name: &str) -> Option<Symbol> {
        if let Some(rest) = name.strip_prefix("wasm[") {
            let (module, rest) = index(rest)?;
            if let Some(rest) = rest.strip_prefix("::function[") {
                let (function, rest) = index(rest)?;
                return (rest.is_empty() || rest.starts_with("::"))
                    .then_some(Symbol::Function { module, function });
            }
            let enters = ["::array_to_wasm_trampoline[", "::native_to_wasm_trampoline["];
            return enters.iter().any(|enter| rest.starts_with(enter)).then_some(Symbol::Entry);
        }
        if let Some(rest) = name.strip_prefix("signatures[") {
            let (_, rest) = index(rest)?;
            let exits = ["::wasm_to_array_trampoline", "::wasm_to_native_trampoline"];
            return exits.contains(&rest).then_some(Symbol::Exit);
        }
        if let Some(rest) = name.strip_prefix("module_start[") {
            return match index(rest)? {
                (module, "::Wasm") => Some(Symbol::ModuleStart { module }),
                (_, "::Array") => Some(Symbol::Entry),
                _ => None,
            };
        }
        if let Some(rest) = name.strip_prefix("component-trampolines[") {
            let (trampoline, rest) = index(rest)?;
            if rest.starts_with("-array-call-") {
                return Some(Symbol::Entry);
            }
            let rest = rest.strip_prefix("-wasm-call-")?;
            return Some(match rest.strip_prefix("component-lower-import[").and_then(index) {
                Some((lowering, "")) => Symbol::LoweredImport { trampoline, lowering },
                _ => Symbol::ComponentBuiltin { trampoline, name: component_builtin(rest).into() },
            });
        }
        if let Some(rest) = name.strip_prefix("unsafe-intrinsics-") {
            return match rest.strip_prefix("wasm-call-") {
                Some(name) => Some(Symbol::UnsafeIntrinsic { name: name.into() }),
                None => rest.starts_with("array-call-").then_some(Symbol::Entry),
            };
        }
        let builtin = name
            .strip_prefix("wasmtime_builtin_")
            .or_else(|| name.strip_prefix("wasmtime_patchable_builtin_"));
        match (name, builtin) {
            (_, Some(builtin)) => Some(Symbol::Builtin { name: core_builtin(builtin).into() }),
            ("resource_drop_trampoline", None) => Some(Symbol::ResourceDrop),
            _ => None,
        }
    }

    /// The name of a function that its symbol ends with, of which versions since 25 write the first characters.
    pub(crate) fn function_name(name: &str) -> Option<&str> {
        let (_, rest) = index(name.strip_prefix("wasm[")?)?;
        let (_, rest) = index(rest.strip_prefix("::function[")?)?;
        rest.strip_prefix("::").filter(|name| !name.is_empty())
    }

    /// The component's trampoline that this is the code of.
    pub(crate) fn component_trampoline(&self) -> Option<u32> {
        match self {
            Symbol::LoweredImport { trampoline, .. } | Symbol::ComponentBuiltin { trampoline, .. } => {
                Some(*trampoline)
            }
            _ => None,
        }
    }

    pub(crate) fn kind(&self) -> CodeKind {
        match self {
            Symbol::Function { .. } | Symbol::ModuleStart { .. } | Symbol::UnsafeIntrinsic { .. } => {
                CodeKind::Guest
            }
            Symbol::Entry => CodeKind::EntryTrampoline,
            Symbol::Exit | Symbol::ResourceDrop | Symbol::LoweredImport { .. } => CodeKind::ExitTrampoline,
            Symbol::ComponentBuiltin { .. } | Symbol::Builtin { .. } => CodeKind::BuiltinTrampoline,
        }
    }
}

/// Splits `12]rest` into 12 and `rest`.
fn index(text: &str) -> Option<(u32, &str)> {
    let (digits, rest) = text.split_once(']')?;
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some((digits.parse().ok()?, rest))
}

/// The builtin by the name of the instruction that it serves, where there is one.
fn core_builtin(name: &str) -> String {
    let instruction = match name {
        "table_grow_func_ref" | "table_grow_gc_ref" => "table.grow",
        "table_get_lazy_init_func_ref" => "table.get",
        "passive_elem_segment_drop" => "elem.drop",
        "ref_func" => "ref.func",
        "gc_alloc_raw" => "gc.alloc",
        "grow_gc_heap" => "gc.grow_heap",
        "force_gc" => "gc.collect",
        "drop_gc_ref" => "gc.drop_ref",
        "intern_func_ref_for_gc_heap" => "gc.intern_func_ref",
        "get_interned_func_ref" => "gc.get_func_ref",
        _ => {
            if let Some(rest) = name.strip_prefix("memory_atomic_") {
                return format!("memory.atomic.{rest}");
            }
            if let Some((group @ ("memory" | "table"), rest)) = name.split_once('_') {
                return format!("{group}.{rest}");
            }
            if let Some((operation @ ("ceil" | "floor" | "trunc" | "nearest"), ty @ ("f32" | "f64"))) =
                name.split_once('_')
            {
                return format!("{ty}.{operation}");
            }
            name
        }
    };
    instruction.to_string()
}

/// A component's builtin by its name in the component model, without the type's number.
fn component_builtin(name: &str) -> String {
    const GROUPS: [&str; 11] = [
        "backpressure",
        "error-context",
        "future",
        "resource",
        "stream",
        "subtask",
        "task",
        "thread",
        "transcode",
        "waitable-set",
        "waitable",
    ];
    let name = name.strip_prefix("component-").unwrap_or(name);
    let name = name.split_once('[').map_or(name, |(name, _)| name);
    for group in GROUPS {
        if let Some(rest) = name.strip_prefix(group).and_then(|rest| rest.strip_prefix('-')) {
            return format!("{group}.{rest}");
        }
    }
    name.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions() {
        let parse = |name| Symbol::parse(name);
        assert_eq!(parse("wasm[0]::function[12]"), Some(Symbol::Function { module: 0, function: 12 }));
        assert_eq!(
            parse("wasm[3]::function[1]::std::vec<int>::at(int[])"),
            Some(Symbol::Function { module: 3, function: 1 })
        );
        assert_eq!(parse("wasm[0]::array_to_wasm_trampoline[1]"), Some(Symbol::Entry));
        assert_eq!(parse("module_start[2]::Wasm"), Some(Symbol::ModuleStart { module: 2 }));
        assert_eq!(parse("module_start[2]::Array"), Some(Symbol::Entry));
        assert_eq!(parse("signatures[4]::wasm_to_array_trampoline"), Some(Symbol::Exit));
        assert_eq!(parse("wasm[0]::native_to_wasm_trampoline[6]"), Some(Symbol::Entry));
        assert_eq!(parse("signatures[0]::wasm_to_native_trampoline"), Some(Symbol::Exit));
    }

    #[test]
    fn names_of_functions() {
        let name = Symbol::function_name;
        assert_eq!(name("wasm[3]::function[1]::std::vec<int>::at(int[])"), Some("std::vec<int>::at(int[])"));
        for without in
            ["wasm[0]::function[12]", "wasm[0]::function[12]::", "signatures[4]::wasm_to_array_trampoline"]
        {
            assert_eq!(name(without), None);
        }
    }

    #[test]
    fn builtins_have_the_names_of_instructions() {
        for (symbol, name) in [
            ("wasmtime_builtin_memory_grow", "memory.grow"),
            ("wasmtime_builtin_memory_copy", "memory.copy"),
            ("wasmtime_builtin_memory_atomic_wait32", "memory.atomic.wait32"),
            ("wasmtime_builtin_table_grow", "table.grow"),
            ("wasmtime_builtin_table_grow_func_ref", "table.grow"),
            ("wasmtime_builtin_ceil_f32", "f32.ceil"),
            ("wasmtime_builtin_new_epoch", "new_epoch"),
            ("wasmtime_patchable_builtin_breakpoint", "breakpoint"),
        ] {
            assert_eq!(Symbol::parse(symbol), Some(Symbol::Builtin { name: name.into() }));
        }
    }

    #[test]
    fn component_trampolines() {
        let builtin = |trampoline, name: &str| Symbol::ComponentBuiltin { trampoline, name: name.into() };
        for (symbol, expected) in [
            (
                "component-trampolines[7]-wasm-call-component-lower-import[2]",
                Symbol::LoweredImport { trampoline: 7, lowering: 2 },
            ),
            ("component-trampolines[7]-array-call-component-lower-import[2]", Symbol::Entry),
            ("component-trampolines[1]-wasm-call-component-resource-drop[5]", builtin(1, "resource.drop")),
            (
                "component-trampolines[1]-wasm-call-component-transcode-utf8-to-utf16-m32-m32",
                builtin(1, "transcode.utf8-to-utf16-m32-m32"),
            ),
            ("component-trampolines[1]-wasm-call-waitable-set-wait", builtin(1, "waitable-set.wait")),
            ("component-trampolines[1]-wasm-call-enter-sync-call", builtin(1, "enter-sync-call")),
        ] {
            assert_eq!(Symbol::parse(symbol), Some(expected));
        }
    }

    #[test]
    fn other_names_are_unknown() {
        for name in
            ["", "main", "wasm[0]", "wasm[x]::function[1]", "wasm[0]::function[1", "wasm[+1]::function[1]"]
        {
            assert_eq!(Symbol::parse(name), None, "{name:?}");
        }
    }
}
