//! The APIs that KubeVirt has for hooks.

use std::fmt;

/// What is served behind one socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Api {
    /// The hook sidecar's, of which `Info` advertises this version.
    Legacy(ApiVersion),
    /// That of plugins.
    Plugins,
}

impl fmt::Display for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Legacy(version) => version.fmt(f),
            Self::Plugins => f.write_str("plugins v1alpha1"),
        }
    }
}

/// A version of the hook sidecar's API, as `--version` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApiVersion {
    /// `OnDefineDomain`.
    V1Alpha1,
    /// And `PreCloudInitIso`.
    V1Alpha2,
    /// And `Shutdown`.
    V1Alpha3,
}

impl ApiVersion {
    /// All of them, oldest first.
    pub const ALL: [Self; 3] = [Self::V1Alpha1, Self::V1Alpha2, Self::V1Alpha3];

    /// The version of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.as_str() == name)
    }

    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V1Alpha1 => "v1alpha1",
            Self::V1Alpha2 => "v1alpha2",
            Self::V1Alpha3 => "v1alpha3",
        }
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
