//! Levels of log lines, and the least one that is sent.

use std::sync::atomic::{AtomicU8, Ordering};

/// Severity of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Level {
    /// Details for the hook's authors.
    Debug,
    /// Normal operation.
    Info,
    /// A problem that the hook worked around.
    Warning,
    /// A failure.
    Error,
}

impl Level {
    const ALL: [Self; 4] = [Self::Debug, Self::Info, Self::Warning, Self::Error];

    /// Returns the level's name in the protocol.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }

    pub(crate) fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.as_str() == name)
    }

    /// Returns the number that syslog has for this level.
    pub(crate) fn syslog(self) -> u8 {
        match self {
            Self::Debug => 7,
            Self::Info => 6,
            Self::Warning => 4,
            Self::Error => 3,
        }
    }
}

/// The least level that this process logs. The shim says which one it logs, and `Info` stands until
/// then: what is less is not logged by default.
static LEAST: AtomicU8 = AtomicU8::new(Level::Info as u8);

/// Sets the least level that this process logs.
pub(crate) fn set_least(level: Level) {
    LEAST.store(level as u8, Ordering::Relaxed);
    #[cfg(feature = "log")]
    crate::logger::set_least(level);
}

pub(crate) fn is_logged(level: Level) -> bool {
    level as u8 >= LEAST.load(Ordering::Relaxed)
}
