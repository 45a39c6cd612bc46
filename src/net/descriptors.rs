//! How many descriptors this process may have.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Takes all the descriptors that the administrator allows: files and connections need them. Tells how many they are;
/// nothing if there is no limit.
pub fn raise_descriptor_limit() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => tracing::debug!(from = ?limit.current, to = ?limit.maximum, "descriptor limit"),
        Err(error) => tracing::warn!(%error, "the limit of descriptors stays at {:?}", limit.current),
    }
    getrlimit(Resource::Nofile).current
}
