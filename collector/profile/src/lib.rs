//! The profile model that every output format of flamewalk is derived from
