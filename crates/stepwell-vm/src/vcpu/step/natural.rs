//! What stepped instructions take by a clock that is natural ([`stepwell_engine::natural`]).
//!
//! The fast path does not tell what it executed, but it leaves at each jump where a run is lent to it
//! that it cannot write. So what it took lies one behind the other, and is looked at afterwards.

use crate::cpu::{Context as _, Cpu};
use crate::memory::GuestMemory as _;
use crate::vcpu::advance::VcpuLoop;
use crate::vcpu::time;
use stepwell_arch::Va;
use stepwell_engine::natural::{DEVICE_NS, ENTRY_NS, cost_ns};
use stepwell_protocol::TimePolicy;

impl<C: Cpu> VcpuLoop<'_, '_, C> {
    /// Whether its clock is natural.
    pub(super) const fn is_natural(&self) -> bool {
        matches!(self.flow.rules.time, TimePolicy::Natural { .. })
    }

    /// Lets pass what the instruction in hand takes, and those that the fast path has executed after
    /// it, beside what any do.
    #[inline(never)]
    pub(super) fn take_time(&mut self) {
        let next = self.flow.hand.next;
        let steps = self.flow.tally.steps - self.flow.hand.steps_before;
        if core::mem::take(&mut self.flow.hand.is_device) {
            self.let_pass(DEVICE_NS);
        }
        for n in 0..steps {
            let word = if n == 0 { next.word } else { self.word_at(Va(next.pc.0 + 4 * n)) };
            match word.map_or(0, cost_ns) {
                0 => {}
                ns => self.let_pass(ns),
            }
        }
        self.mind_deadline();
    }

    /// Lets pass what an exception's entry takes.
    pub(super) fn take_entry_time(&mut self) {
        self.let_pass(ENTRY_NS);
        self.mind_deadline();
    }

    fn let_pass(&mut self, ns: u32) {
        self.running.domain.clock.lock().take(ns);
    }

    /// An instruction that has executed, in a page that the fast path has looked into.
    fn word_at(&self, pc: Va) -> Option<u32> {
        let page = self.running.core.context.known_page(pc)?;
        self.running.domain.ram.instruction(page, pc)
    }

    fn mind_deadline(&mut self) {
        if self.running.domain.clock.lock().now() >= self.flow.tally.deadline {
            time::update_lines(self.running);
            self.find_deadline();
        }
    }
}
