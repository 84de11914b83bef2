//! What a report tells beside the records.

use crate::format::Header;

/// How the reading of the recording ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Completeness {
    /// It has an end, and was read to it.
    #[default]
    Whole,
    /// The one who recorded was ended in the middle.
    Unfinished,
    /// It is damaged, here in words, and what can be read is reported.
    Damaged(String),
}

/// What is told besides the records.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Name of the recording, as the page's title.
    pub title: String,
    /// Bytes of the file, 0 if that is unknown or says nothing about what is reported.
    pub bytes: u64,
    /// What the recording tells about itself.
    pub header: Header,
    /// What was chosen of it, in words; empty for all.
    pub selection: String,
    /// Version of the tool.
    pub version: String,
}
