//! What is in a speedscope file. Members are named as there.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Number;

#[derive(Deserialize, Serialize)]
pub(super) struct File {
    #[serde(rename = "$schema")]
    pub(super) schema: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    pub(super) exporter: Option<String>,
    /// Ours: the name of the event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) event: Option<String>,
    pub(super) shared: Shared,
    pub(super) profiles: Vec<FileProfile>,
}

#[derive(Deserialize, Serialize)]
pub(super) struct Shared {
    pub(super) frames: Vec<FileFrame>,
}

#[derive(Deserialize, Serialize)]
pub(super) struct FileFrame {
    pub(super) name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) line: Option<Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) col: Option<Number>,
}

/// Of either kind, as the type says. An enum would make serde keep a copy of everything until it has seen the type.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct FileProfile {
    /// `sampled` or `evented`.
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) name: Option<String>,
    pub(super) unit: String,
    pub(super) start_value: Number,
    pub(super) end_value: Number,
    /// Ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) thread: Option<FileThread>,
    /// Ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) labels: Option<BTreeMap<String, String>>,
    /// Of a sampled profile: frames of each sample, oldest first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) samples: Option<Vec<Vec<u64>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) weights: Option<Vec<Number>>,
    /// Ours: the number of samples behind each weight.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) counts: Option<Vec<u64>>,
    /// Of an evented profile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) events: Option<Vec<FileEvent>>,
}

#[derive(Deserialize, Serialize)]
pub(super) struct FileThread {
    pub(super) id: u64,
    pub(super) name: Option<String>,
}

/// A frame is entered or left.
#[derive(Deserialize, Serialize)]
pub(super) struct FileEvent {
    #[serde(rename = "type")]
    pub(super) kind: FileEventKind,
    pub(super) frame: u64,
    pub(super) at: Number,
}

#[derive(Deserialize, Serialize)]
pub(super) enum FileEventKind {
    #[serde(rename = "O")]
    Open,
    #[serde(rename = "C")]
    Close,
}
