//! What the tool around the server can do: names, recordings, its own terminal.
//!
//! All of it has a default that does nothing, so that a server over a bare debuggee works.

use crate::scope::Process;
use stepwell_arch::{Ipa, Va};
use stepwell_debuggee::{Debuggee, Error, VcpuId};

/// The tool, as the server sees it.
pub trait Services {
    /// Takes what the guest wrote on its console.
    fn console(&mut self, _bytes: &[u8]) {}

    /// Takes a line for the tool's own terminal.
    fn note(&mut self, _text: &str) {}

    /// Called often, whether the guest runs or is stopped: whoever types, types now.
    ///
    /// # Errors
    ///
    /// Only [`Error::Lost`].
    fn poll(&mut self, _debuggee: &mut dyn Debuggee) -> Result<(), Error> {
        Ok(())
    }

    /// Returns where the tool has a hidden breakpoint of its own: the guest passes there once it
    /// runs where it will stay. None where there is nothing to learn, or no more.
    fn landmark(&self) -> Option<Ipa> {
        None
    }

    /// Learns where the guest runs; called at each stop that a client is told of, and at each
    /// breakpoint that is not the client's.
    ///
    /// # Errors
    ///
    /// Only [`Error::Lost`].
    fn stopped(&mut self, _debuggee: &mut dyn Debuggee, _vcpu: VcpuId) -> Result<(), Error> {
        Ok(())
    }

    /// Returns `symbol+0xoffset` for an address.
    fn name(&self, _va: Va) -> Option<String> {
        None
    }

    /// Returns where a word leads to that is a symbol, an address, or both added.
    fn resolve(&self, word: &str) -> Option<Va> {
        let digits = word.strip_prefix("0x").or_else(|| word.strip_prefix("0X"))?;
        u64::from_str_radix(digits, 16).ok().map(Va)
    }

    /// Returns an instruction as text.
    fn disassemble(&self, _word: u32, _va: Va) -> Option<String> {
        None
    }

    /// Returns the task that a stopped vCPU executes, where the guest tells.
    ///
    /// # Errors
    ///
    /// Only [`Error::Lost`].
    fn task(
        &mut self,
        _debuggee: &mut dyn Debuggee,
        _vcpu: VcpuId,
    ) -> Result<Option<String>, Error> {
        Ok(None)
    }

    /// Returns the address of the structure of the task that a stopped vCPU executes, which no other
    /// task has, where the guest tells.
    ///
    /// # Errors
    ///
    /// Only [`Error::Lost`].
    fn task_address(
        &mut self,
        _debuggee: &mut dyn Debuggee,
        _vcpu: VcpuId,
    ) -> Result<Option<u64>, Error> {
        Ok(None)
    }

    /// Returns the process that a stopped vCPU executes, where the guest tells.
    ///
    /// # Errors
    ///
    /// Only [`Error::Lost`].
    fn process(
        &mut self,
        _debuggee: &mut dyn Debuggee,
        _vcpu: VcpuId,
    ) -> Result<Option<Process>, Error> {
        Ok(None)
    }

    /// Executes a `monitor` command of the tool's own, and returns what to show; nothing where it
    /// has no such.
    ///
    /// # Errors
    ///
    /// Only [`Error::Lost`].
    fn command(
        &mut self,
        _debuggee: &mut dyn Debuggee,
        _vcpu: VcpuId,
        _words: &[&str],
    ) -> Result<Option<String>, Error> {
        Ok(None)
    }

    /// Returns the help of these commands, a line each.
    fn help(&self) -> &str {
        ""
    }

    /// Returns where the kernel's image has an address that it will have once its MMU is on.
    fn image_place(&self, _va: Va) -> Option<Ipa> {
        None
    }

    /// Returns how far the kernel runs from where it was linked, once that was seen.
    fn moved_by(&self) -> Option<u64> {
        None
    }

    /// Returns the command that makes GDB load the guest's symbols where they are.
    fn symbol_command(&self) -> Option<String> {
        None
    }

    /// Starts a recording with this name, which a client chose: it makes a new file, where the
    /// user has allowed that, or none.
    ///
    /// # Errors
    ///
    /// A text for the client.
    fn start_trace(&mut self, _name: &str) -> Result<String, String> {
        Err("this server cannot record".to_owned())
    }

    /// Tells whether steps are to be recorded.
    fn is_tracing(&self) -> bool {
        false
    }

    /// Takes the steps that were recorded since it was last called.
    ///
    /// # Errors
    ///
    /// Where the debuggee is lost; where the file cannot be written the recording ends with a note.
    fn drain_trace(&mut self, _debuggee: &mut dyn Debuggee, _vcpu: VcpuId) -> Result<(), Error> {
        Ok(())
    }

    /// Completes the recording.
    ///
    /// # Errors
    ///
    /// A text for the client.
    fn stop_trace(&mut self) -> Result<String, String> {
        Err("nothing is being recorded".to_owned())
    }
}

/// No tool at all.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoServices;

impl Services for NoServices {}
