//! The command line of `sample`.

use clap::Args;
use sidecar_shim::cli::values::usage;
use sidecar_shim::error::StartError;

use crate::sample::Sample;

#[derive(Args)]
pub(super) struct SampleArgs {
    /// vmi, domain or cloud-init
    #[arg(value_enum, value_name = "DOCUMENT", hide_possible_values = true)]
    document: Sample,

    /// The domain as the Plugins API spells it
    #[arg(long)]
    plugin: bool,
}

impl SampleArgs {
    /// Returns the sample, and whether it is for a Plugin.
    pub(super) fn resolve(&self) -> Result<(Sample, bool), StartError> {
        if self.plugin && self.document != Sample::Domain {
            return Err(usage(
                "--plugin goes with domain only: the others are the same in both APIs",
            ));
        }
        Ok((self.document, self.plugin))
    }
}
