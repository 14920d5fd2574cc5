//! KubeVirt's APIs for hooks.

use std::fmt;

/// The API of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Api {
    /// The API of hook sidecars. `Info` advertises this version.
    Legacy(ApiVersion),
    /// The API of plugins.
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

/// A version of the API of hook sidecars, the value of `--version`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApiVersion {
    /// `OnDefineDomain`.
    V1Alpha1,
    /// Adds `PreCloudInitIso`.
    V1Alpha2,
    /// Adds `Shutdown`.
    V1Alpha3,
}

impl ApiVersion {
    /// All versions, oldest first.
    pub const ALL: [Self; 3] = [Self::V1Alpha1, Self::V1Alpha2, Self::V1Alpha3];

    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.as_str() == name)
    }

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
