//! The configurations of Wasmtime that every case runs in.

use wasmtime::{
    Config, Engine, Inlining, InstanceAllocationStrategy, Module, OptLevel, PoolingAllocationConfig, Strategy,
};

/// What an engine counts so as to stop its guests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Metering {
    Fuel,
    Epochs,
}

/// What some configuration does not support.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Feature {
    Exceptions,
    FunctionReferences,
    Gc,
    SharedMemory,
    TailCalls,
}

/// What Winch refuses.
const CRANELIFT_ONLY: [Feature; 4] =
    [Feature::Exceptions, Feature::FunctionReferences, Feature::Gc, Feature::TailCalls];

impl Feature {
    /// What an engine says that has to refuse it.
    fn refusal(self) -> &'static str {
        match self {
            Self::Exceptions => "the wasm_exceptions feature is not supported on this compiler configuration",
            Self::FunctionReferences => {
                "the wasm_function_references feature is not supported on this compiler configuration"
            }
            Self::Gc => "the wasm_gc feature is not supported on this compiler configuration",
            Self::SharedMemory => "memory is shared which is not supported in the pooling allocator",
            Self::TailCalls => "the wasm_tail_call feature is not supported on this compiler configuration",
        }
    }

    fn enable(self, config: &mut Config) {
        match self {
            Self::Exceptions => config.wasm_exceptions(true),
            Self::FunctionReferences => config.wasm_function_references(true),
            Self::Gc => config.wasm_gc(true),
            Self::SharedMemory => config.wasm_threads(true).shared_memory(true),
            Self::TailCalls => config.wasm_tail_call(true),
        };
    }

    /// Tries it, and says how it was refused.
    fn refused_by(self, mut config: Config) -> Option<String> {
        self.enable(&mut config);
        let refused = match (self, Engine::new(&config)) {
            (_, Err(refused)) => refused,
            // Only guests that have one are refused.
            (Self::SharedMemory, Ok(engine)) => Module::new(&engine, "(module (memory 1 1 shared))").err()?,
            (_, Ok(_)) => return None,
        };
        Some(refused.root_cause().to_string())
    }
}

/// One way to set up an engine.
pub(super) struct Configuration {
    pub(super) name: &'static str,
    configure: fn(&mut Config),
    pub(super) metering: Option<Metering>,
    /// What it refuses: cases that need it are left out.
    pub(super) refuses: &'static [Feature],
}

const ALL_SUPPORTED: &[Feature] = &[];

/// In bytes. Small, since a case fills it.
const MAX_WASM_STACK: usize = 128 << 10;

/// All configurations.
pub(super) const MATRIX: [Configuration; 11] = [
    Configuration {
        name: "opt-level none",
        configure: |config| {
            config.cranelift_opt_level(OptLevel::None);
        },
        metering: None,
        refuses: ALL_SUPPORTED,
    },
    Configuration {
        name: "opt-level speed",
        configure: |config| {
            config.cranelift_opt_level(OptLevel::Speed);
        },
        metering: None,
        refuses: ALL_SUPPORTED,
    },
    Configuration {
        name: "opt-level speed_and_size",
        configure: |config| {
            config.cranelift_opt_level(OptLevel::SpeedAndSize);
        },
        metering: None,
        refuses: ALL_SUPPORTED,
    },
    Configuration {
        name: "inlining",
        configure: |config| {
            config.compiler_inlining(Inlining::Yes);
        },
        metering: None,
        refuses: ALL_SUPPORTED,
    },
    Configuration {
        name: "epochs",
        configure: |config| {
            config.epoch_interruption(true);
        },
        metering: Some(Metering::Epochs),
        refuses: ALL_SUPPORTED,
    },
    Configuration {
        name: "fuel",
        configure: |config| {
            config.consume_fuel(true);
        },
        metering: Some(Metering::Fuel),
        refuses: ALL_SUPPORTED,
    },
    Configuration {
        name: "no unwind info",
        configure: |config| {
            config.native_unwind_info(false);
        },
        metering: None,
        refuses: ALL_SUPPORTED,
    },
    Configuration {
        name: "traps by calls",
        configure: |config| {
            config.signals_based_traps(false);
        },
        metering: None,
        refuses: ALL_SUPPORTED,
    },
    Configuration {
        name: "pooling",
        configure: |config| {
            let mut pool = PoolingAllocationConfig::default();
            pool.total_core_instances(32)
                .total_memories(16)
                .total_tables(16)
                .total_stacks(4)
                .total_gc_heaps(8)
                .max_memories_per_module(2)
                .max_tables_per_module(2)
                .max_memory_size(1 << 24);
            config.memory_reservation(1 << 24).memory_guard_size(1 << 16);
            config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
        },
        metering: None,
        refuses: &[Feature::SharedMemory],
    },
    Configuration {
        name: "winch",
        configure: |config| {
            config.strategy(Strategy::Winch);
        },
        metering: None,
        refuses: &CRANELIFT_ONLY,
    },
    Configuration {
        name: "winch, epochs",
        configure: |config| {
            config.strategy(Strategy::Winch).epoch_interruption(true);
        },
        metering: Some(Metering::Epochs),
        refuses: &CRANELIFT_ONLY,
    },
];

impl Configuration {
    /// The engine, with everything on that it supports. What it is said to refuse is tried, and has to be refused.
    pub(super) fn engine(&self) -> Engine {
        for feature in self.refuses {
            let refusal = feature.refused_by(self.config());
            assert_eq!(refusal.as_deref(), Some(feature.refusal()), "{}: {feature:?}", self.name);
        }
        let mut config = self.config();
        for feature in CRANELIFT_ONLY.iter().filter(|feature| !self.refuses.contains(feature)) {
            feature.enable(&mut config);
        }
        Engine::new(&config).unwrap_or_else(|error| panic!("{}: {error:?}", self.name))
    }

    fn config(&self) -> Config {
        let mut config = Config::new();
        config.wasm_threads(true).shared_memory(true).max_wasm_stack(MAX_WASM_STACK);
        (self.configure)(&mut config);
        config
    }
}
