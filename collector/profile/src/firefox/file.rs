//! What is in a processed profile of the Firefox Profiler, version 55: tables by columns, one set for each thread.
//! Members are named as there.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Number, Value};

#[derive(Deserialize, Serialize)]
pub(super) struct File {
    pub(super) meta: Meta,
    #[serde(default)]
    pub(super) libs: Vec<Lib>,
    /// None: there are no pages of a browser.
    #[serde(skip_deserializing)]
    pub(super) pages: [(); 0],
    pub(super) threads: Vec<FileThread>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Meta {
    /// Of a sample, in milliseconds.
    pub(super) interval: f64,
    /// In milliseconds since 1970.
    #[serde(default)]
    pub(super) start_time: f64,
    /// In milliseconds since the start time.
    #[serde(default)]
    pub(super) profiling_start_time: Option<f64>,
    #[serde(default)]
    pub(super) profiling_end_time: Option<f64>,
    pub(super) preprocessed_profile_version: u32,
    #[serde(default)]
    pub(super) product: String,
    #[serde(default)]
    pub(super) categories: Vec<Category>,
    /// Ours: what no member of the format says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) flamewalk: Option<Own>,
    #[serde(flatten, skip_deserializing)]
    pub(super) constant: Option<Constant>,
}

/// Ours.
#[derive(Deserialize, Serialize)]
pub(super) struct Own {
    pub(super) event: String,
    pub(super) guest: Option<String>,
    /// Length of a slice of time, in nanoseconds.
    pub(super) slice: Option<u64>,
    pub(super) notices: Vec<String>,
}

/// Members that the Firefox Profiler wants to see and that are the same in every file of ours, or only shown.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Constant {
    pub(super) debug: bool,
    pub(super) extensions: Value,
    pub(super) process_type: u32,
    pub(super) sample_units: Value,
    pub(super) symbolicated: bool,
    pub(super) paused_ranges: [(); 0],
    pub(super) version: u32,
    pub(super) uses_only_one_stack_type: bool,
    pub(super) source_code_is_not_on_searchfox: bool,
    pub(super) marker_schema: Value,
    pub(super) extra: Value,
}

#[derive(Deserialize, Serialize)]
pub(super) struct Category {
    pub(super) name: String,
    pub(super) color: String,
    pub(super) subcategories: Vec<String>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Lib {
    pub(super) name: String,
    #[serde(flatten, skip_deserializing)]
    pub(super) constant: Option<Box<LibConstant>>,
}

/// The same for [`Lib`] as [`Constant`].
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LibConstant {
    pub(super) arch: &'static str,
    pub(super) path: String,
    pub(super) debug_name: String,
    pub(super) debug_path: String,
    pub(super) breakpad_id: String,
    pub(super) code_id: Option<String>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct FileThread {
    #[serde(default)]
    pub(super) name: String,
    /// Different for each. Not read, since in files of other programs it may be a number or a text.
    #[serde(skip_deserializing)]
    pub(super) tid: String,
    /// Ours: whether there was a thread, what it was called, and its labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) flamewalk: Option<OwnThread>,
    pub(super) samples: Samples,
    pub(super) stack_table: StackTable,
    pub(super) frame_table: FrameTable,
    pub(super) func_table: FuncTable,
    #[serde(default)]
    pub(super) resource_table: ResourceTable,
    /// The texts that the tables of this thread refer to.
    pub(super) string_array: Vec<String>,
    #[serde(flatten, skip_deserializing)]
    pub(super) constant: Option<ThreadConstant>,
}

/// Ours.
#[derive(Deserialize, Serialize)]
pub(super) struct OwnThread {
    /// None for samples of which no thread is known.
    pub(super) id: Option<u64>,
    pub(super) name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) labels: Option<BTreeMap<String, String>>,
}

/// The same for [`FileThread`] as [`Constant`].
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ThreadConstant {
    pub(super) is_main_thread: bool,
    pub(super) pid: &'static str,
    pub(super) process_name: String,
    pub(super) process_type: &'static str,
    pub(super) process_startup_time: f64,
    pub(super) process_shutdown_time: Option<f64>,
    pub(super) register_time: f64,
    pub(super) unregister_time: Option<f64>,
    pub(super) paused_ranges: [(); 0],
    pub(super) show_markers_in_timeline: bool,
    pub(super) native_symbols: NativeSymbols,
    pub(super) markers: Markers,
}

#[derive(Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Samples {
    pub(super) length: usize,
    /// `samples`, `tracing-ms` or `bytes`.
    #[serde(default)]
    pub(super) weight_type: Option<String>,
    pub(super) stack: Vec<Option<u64>>,
    /// In milliseconds; or as differences, each from the one before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) time: Option<Vec<f64>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) time_deltas: Option<Vec<f64>>,
    #[serde(default)]
    pub(super) weight: Option<Vec<Number>>,
    /// In nanoseconds, as the sample units say.
    #[serde(default, rename = "threadCPUDelta", skip_serializing_if = "Option::is_none", skip_deserializing)]
    pub(super) thread_cpu_delta: Option<Vec<u64>>,
    /// Ours: the number of samples behind each weight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) counts: Option<Vec<u64>>,
}

#[derive(Default, Deserialize, Serialize)]
pub(super) struct StackTable {
    pub(super) length: usize,
    /// The stack of the caller.
    pub(super) prefix: Vec<Option<u64>>,
    pub(super) frame: Vec<u64>,
}

#[derive(Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct FrameTable {
    pub(super) length: usize,
    /// Offset into the library, or -1.
    pub(super) address: Vec<i64>,
    pub(super) inline_depth: Vec<u32>,
    pub(super) category: Vec<Option<u64>>,
    #[serde(skip_deserializing)]
    pub(super) subcategory: Vec<u32>,
    pub(super) func: Vec<u64>,
    #[serde(skip_deserializing)]
    pub(super) native_symbol: Vec<Option<usize>>,
    #[serde(skip_deserializing, rename = "innerWindowID")]
    pub(super) inner_window_id: Vec<u32>,
    pub(super) line: Vec<Option<u32>>,
    pub(super) column: Vec<Option<u32>>,
}

#[derive(Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct FuncTable {
    pub(super) length: usize,
    pub(super) name: Vec<u64>,
    #[serde(skip_deserializing, rename = "isJS")]
    pub(super) is_js: Vec<bool>,
    #[serde(skip_deserializing, rename = "relevantForJS")]
    pub(super) relevant_for_js: Vec<bool>,
    /// Or -1.
    pub(super) resource: Vec<i64>,
    pub(super) file_name: Vec<Option<u64>>,
    #[serde(skip_deserializing)]
    pub(super) line_number: Vec<Option<u32>>,
    #[serde(skip_deserializing)]
    pub(super) column_number: Vec<Option<u32>>,
}

#[derive(Default, Deserialize, Serialize)]
pub(super) struct ResourceTable {
    pub(super) length: usize,
    pub(super) lib: Vec<Option<i64>>,
    #[serde(skip_deserializing)]
    pub(super) name: Vec<u64>,
    #[serde(skip_deserializing)]
    pub(super) host: Vec<Option<u64>>,
    #[serde(skip_deserializing, rename = "type")]
    pub(super) kind: Vec<u32>,
}

/// The machine functions that frames are in, by which the profiler knows what was inlined into what.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NativeSymbols {
    pub(super) length: usize,
    /// Offset into the library.
    pub(super) address: Vec<u32>,
    pub(super) function_size: Vec<Option<u32>>,
    pub(super) lib_index: Vec<usize>,
    pub(super) name: Vec<u64>,
}

#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Markers {
    pub(super) length: usize,
    pub(super) category: Vec<u64>,
    pub(super) data: Vec<Value>,
    pub(super) name: Vec<u64>,
    /// 0 for a point in time, 1 for an interval.
    pub(super) phase: Vec<u32>,
    pub(super) start_time: Vec<f64>,
    pub(super) end_time: Vec<Option<f64>>,
}
