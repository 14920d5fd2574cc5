//! Why a worker failed: what everyone may read of it, and what it wrote.

use std::fmt;

/// How a worker failed. As a text, with what it wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::backend) struct Fault {
    /// Names no VM, and quotes nothing that the worker wrote.
    pub(in crate::backend) what: String,
    /// The clauses about what it wrote.
    pub(in crate::backend) written: String,
}

impl From<String> for Fault {
    fn from(what: String) -> Self {
        Self { what, written: String::new() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.what, self.written)
    }
}
