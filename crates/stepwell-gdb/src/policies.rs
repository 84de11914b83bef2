//! What a client has chosen for a domain: it outlives a session, and the next client finds it.

use stepwell_debuggee::{InterruptPolicy, OthersPolicy, TimePolicy};

/// What was chosen for a domain; it outlives a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policies {
    /// Interrupts while stepping.
    pub interrupts: InterruptPolicy,
    /// The other vCPUs while one is stepped.
    pub others: OthersPolicy,
    /// The clock.
    pub time: TimePolicy,
    /// Stop at SMC.
    pub smc: bool,
}

impl Default for Policies {
    fn default() -> Self {
        Self {
            interrupts: InterruptPolicy::Over,
            others: OthersPolicy::Stop,
            time: TimePolicy::Stopped,
            smc: false,
        }
    }
}
