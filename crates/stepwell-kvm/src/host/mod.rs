//! The machine on an arm64 Linux host.

mod build;
mod context;
mod cpu;
mod general;
mod interface;
mod machine_code;
mod ram;
mod registers;
mod ring;
mod server;
mod tables;
mod vcpu;
mod vm;
mod withheld;

use crate::{ChannelWords, Files, KvmError, VCPUS_MAX};
use cpu::KvmCpu;
use server::{DeviceChannel, Sender, ToTool};
use std::fs::File;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::{self, JoinHandle, Thread};
use stepwell_protocol::DomainEnding;
use stepwell_vm::domain::{Domain, Power};
use stepwell_vm::machine::Machine;
use stepwell_vm::vcpu::{carry_out_and_park, interrupt, psci};
use stepwell_wire::devices::Server;
use vcpu::Vcpu;
use vm::{Opened, Vm};

/// Where recorded steps lie: a file without a name.
#[derive(Debug)]
pub struct Ring {
    /// The file.
    pub file: File,
    /// Its bytes.
    pub bytes: u64,
}

/// A running machine. Dropping it ends all of its threads.
pub struct KvmMachine {
    vm: Arc<Vm>,
    machine: Arc<Machine<KvmCpu>>,
    threads: Vec<JoinHandle<()>>,
    ring: Ring,
    devices: Arc<DeviceChannel>,
}

impl KvmMachine {
    /// Starts a machine and returns it with the stream to its end of the link; the guest is stopped at
    /// reset.
    ///
    /// # Errors
    ///
    /// [`KvmError`]. Nothing is left behind.
    pub fn launch(files: &Files<'_>) -> Result<(Self, UnixStream), KvmError> {
        if !(1..=VCPUS_MAX).contains(&files.vcpus) {
            let why = "its GICv2 has no more CPU interfaces";
            return Err(KvmError::Vcpus { wanted: files.vcpus, most: VCPUS_MAX, why });
        }
        let opened = Opened::open()?;
        let failed = |error| KvmError::Refused { what: "be spoken with", error };
        let (tool, own) = UnixStream::pair().map_err(failed)?;
        let ram = ram::GuestRam::new(files.memory_bytes)?;
        let closer = own.try_clone().map_err(failed)?;
        let (vm, vcpus) = opened.make(ram, files.vcpus, closer, files.verbose)?;
        let vm = Arc::new(vm);
        let (ring, file, bytes) = ring::TraceRing::new()
            .map_err(|error| KvmError::NoMemory { mib: files.memory_bytes >> 20, error })?;
        let sender = Arc::new(Sender::new(own.try_clone().map_err(failed)?));
        let devices = Arc::new(DeviceChannel::default());
        let link = Box::new(ToTool::new(sender.clone(), devices.clone()));
        let (machine, cpus) = build::machine(files, &vm, vcpus, ring, link)?;
        let machine = Arc::new(machine);
        let ring = Ring { file, bytes };
        let mut started =
            Self { vm: vm.clone(), machine: machine.clone(), threads: Vec::new(), ring, devices };
        for (number, vcpu) in cpus.into_iter().enumerate() {
            let (machine, vm) = (machine.clone(), vm.clone());
            let run = move || run(&machine, number, vm, vcpu);
            started.threads.push(spawn(format!("vcpu-{number}"), run)?);
        }
        let alarms = vm.clone();
        let looks_in = !vm.features.forwards_calls;
        let give = move || alarms.calls.give_alarms(looks_in);
        started.threads.push(spawn("alarms".into(), give)?);
        let nobody = vm.clone();
        started.threads.push(spawn("link".into(), move || {
            server::serve(&KvmCpu::of_nobody(nobody), &machine, &sender, own);
        })?);
        Ok((started, tool))
    }

    /// Where recorded steps lie.
    #[must_use]
    pub const fn ring(&self) -> &Ring {
        &self.ring
    }

    /// The guest's RAM.
    #[must_use]
    pub fn ram(&self) -> &File {
        self.vm.ram.file()
    }

    /// The end of the device channel that serves the guest's devices. There is one.
    #[must_use]
    pub fn device_channel(&self) -> Server<ChannelWords> {
        self.devices.server()
    }

    /// What rings the machine's doorbell.
    pub fn doorbell(&self) -> impl Fn() + Send + use<> {
        let vm = self.vm.clone();
        move || vm.calls.ring()
    }

    /// Has a thread woken where something is asked of the devices.
    pub fn wake_for_devices(&self, thread: &Thread) {
        self.devices.wake(thread);
    }
}

impl Drop for KvmMachine {
    fn drop(&mut self) {
        self.vm.close_link();
        // Nobody hears of it, and whoever runs comes out.
        let cpu = KvmCpu::of_nobody(self.vm.clone());
        for domain in &self.machine.domains {
            domain.end(&cpu, DomainEnding::PoweredOff);
        }
        self.vm.calls.end();
        for thread in self.threads.drain(..) {
            // One that panicked has said so.
            drop(thread.join());
        }
    }
}

fn spawn(name: String, act: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, KvmError> {
    let thread = thread::Builder::new().name(name).spawn(act);
    thread.map_err(|error| KvmError::Refused { what: "have a thread", error })
}

/// Runs a vCPU until the machine is over.
fn run(machine: &Machine<KvmCpu>, number: usize, vm: Arc<Vm>, vcpu: Vcpu) {
    let Some(domain) = machine.domains.first() else { return };
    let Some(own) = domain.vcpus.get(number) else { return };
    let cpu = KvmCpu::of_vcpu(number, vm.clone(), vcpu);
    while !vm.calls.is_over() {
        interrupt::take_all_at_el2(machine, &cpu, number);
        if let Some(order) = take_order(domain, number) {
            carry_out_and_park(machine, domain, number, own, &cpu, order);
        } else if cpu.is_switched_by_kvm() && domain.control.lock().power(number) == Power::Off {
            if let Some(entry) = cpu.wait_until_on() {
                // It was off, and is not any more.
                let _success = psci::switch_on(machine, domain, &cpu, number, entry);
            }
        } else {
            stepwell_vm::cpu::Cpu::wait_for_interrupt(&cpu);
        }
    }
}

fn take_order(domain: &Domain<KvmCpu>, number: usize) -> Option<stepwell_vm::domain::Order> {
    domain.vcpus.get(number)?.order.lock().take()
}

/// Says what KVM can do here.
///
/// # Errors
///
/// [`KvmError`]: why it cannot.
pub fn describe() -> Result<Vec<String>, KvmError> {
    let features = Opened::open()?.features;
    let clock = if features.counter_offset {
        "the guest's clock is set exactly"
    } else {
        "the guest's clock is set to some microseconds (exactly from Linux 6.4 on)"
    };
    let calls = if features.forwards_calls {
        "switched on and off by us"
    } else {
        "switched on and off by KVM (by us from Linux 6.4 on)"
    };
    Ok(vec![
        "steps, interrupts held or entered, exclusives, virtual time".to_owned(),
        clock.to_owned(),
        format!(
            "{} breakpoints and {} watchpoints of the CPU; beyond, pages that are stepped through",
            features.breakpoints.saturating_sub(2),
            features.watchpoints,
        ),
        format!("up to {VCPUS_MAX} vCPUs, {calls}"),
        format!("{}, no record and replay", if features.sve { "SVE" } else { "no SVE" }),
    ])
}
