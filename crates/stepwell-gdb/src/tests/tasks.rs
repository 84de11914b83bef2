//! What the tool knows of the guest's system shows in the client's list of threads, and the tool has
//! `monitor` commands of its own.

use super::{Client, text};
use crate::{Policies, RegisterSet, Services, Session};
use stepwell_debuggee::fake::Fake;
use stepwell_debuggee::{Debuggee, Error, VcpuId, contract};

struct Knows;

impl Services for Knows {
    fn task(&mut self, _: &mut dyn Debuggee, vcpu: VcpuId) -> Result<Option<String>, Error> {
        Ok(Some(format!("task {} sh", vcpu.vcpu + 1)))
    }

    fn command(
        &mut self,
        debuggee: &mut dyn Debuggee,
        vcpu: VcpuId,
        words: &[&str],
    ) -> Result<Option<String>, Error> {
        let pc = debuggee.read_registers(vcpu)?.pc;
        Ok((words == ["ps"]).then(|| format!("one task at {pc:#x}\n")))
    }

    fn help(&self) -> &str {
        "ps                           the tasks\n"
    }
}

#[test]
fn threads_tell_their_tasks_and_the_tool_has_its_commands() {
    let mut fake = Fake::new(&contract::guest_bytes());
    contract::wait_for_stop(&mut fake);
    let registers = RegisterSet::probe(&mut fake, VcpuId::default()).unwrap();
    let (mut services, mut policies) = (Knows, Policies::default());
    let session =
        Session::new(&mut fake, &mut services, &registers, &mut policies, VcpuId::default());
    let mut client = Client { session: session.unwrap(), left: None };
    let info = client.answer("qThreadExtraInfo,p1.1");
    assert_eq!(text(&info).unwrap(), "domain 0 vCPU 0, task 1 sh, stopped in EL1");
    assert_eq!(client.monitor("ps"), format!("one task at {:#x}\n", contract::ENTRY.0));
    let help = client.monitor("ps -a");
    assert!(help.starts_with("no such command: ps -a\n") && help.contains("the tasks"), "{help}");
    assert!(client.monitor("help").contains("the tasks\nhelp  "));
}
