//! The bytes of the messages, so that a change of the language is seen to be one.
//!
//! A failure here is not repaired by new bytes alone: raise `VERSION` with them, because a tool
//! and a hypervisor of different days would no longer understand each other.
//!
//! The bytes are postcard's: enum variants by number, integers wider than a byte as varints.

use heapless::Vec;
use serde::{Serialize, de::DeserializeOwned};
use std::fmt::Debug;
use stepwell_arch::{Ipa, Va};
use stepwell_protocol::{
    DomainEnding, FaultKind, GuestFault, InterruptPolicy, Monitor, OthersPolicy, Place, Refusal,
    Registers, SimdRegisters, StopReason, SveRegister, TimePolicy, VcpuState, VectorLength,
    WatchAccess, Watchpoint,
};
use stepwell_wire::{
    Answer, Bytes, Command, Event, FrameDecoder, FromHypervisor, MAX_FRAME, Request, Timeline,
    VERSION, encode,
};

/// Checks a message's bytes, and that it comes out of a frame as it went in.
#[track_caller]
fn golden<M: Serialize + DeserializeOwned + PartialEq + Debug>(message: &M, bytes: &[u8]) {
    let mut plain = [0; MAX_FRAME];
    let got = postcard::to_slice(message, &mut plain).expect("fits a frame");
    assert_eq!(got, bytes, "{message:?}");
    let mut out = [0; MAX_FRAME];
    let frame = encode(message, &mut out).expect("fits a frame");
    let mut decoder = FrameDecoder::new();
    let messages: std::vec::Vec<_> =
        frame.iter().filter_map(|&byte| decoder.push::<M>(byte)).collect();
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0].as_ref(), Ok(message));
}

#[track_caller]
fn request(command: Command, bytes: &[u8]) {
    let mut whole = vec![0x81, 0x02];
    whole.extend(bytes);
    golden(&Request { id: 0x101, command }, &whole);
}

#[track_caller]
fn answer(answer: Answer, bytes: &[u8]) {
    let mut whole = vec![0, 5, 0];
    whole.extend(bytes);
    golden(&FromHypervisor::Response { id: 5, result: Ok(answer) }, &whole);
}

#[track_caller]
fn refusal(refusal: Refusal, bytes: &[u8]) {
    let mut whole = vec![0, 5, 1];
    whole.extend(bytes);
    golden(&FromHypervisor::Response { id: 5, result: Err(refusal) }, &whole);
}

#[track_caller]
fn event(event: Event, bytes: &[u8]) {
    let mut whole = vec![1];
    whole.extend(bytes);
    golden(&FromHypervisor::Event(event), &whole);
}

fn text(bytes: &[u8]) -> Bytes {
    Vec::from_slice(bytes).expect("short")
}

#[test]
fn the_version_that_these_bytes_belong_to() {
    assert_eq!(VERSION, 11);
}

#[test]
fn commands_that_move_the_guest() {
    request(Command::Hello { version: 2 }, &[0, 2]);
    request(Command::Status { domain: 2 }, &[1, 2]);
    request(Command::Pause { domain: 2 }, &[2, 2]);
    request(Command::Continue { domain: 2, vcpu: None }, &[3, 2, 0]);
    request(Command::Continue { domain: 2, vcpu: Some(5) }, &[3, 2, 1, 5]);
    let (until, within) = (None, Some((4, 0x80)));
    let all = true;
    let step = Command::Step { domain: 0, vcpu: 1, count: 300, until, record: true, all, within };
    request(step, &[4, 0, 1, 0xac, 2, 0, 1, 1, 1, 4, 0x80, 1]);
    let until = Some(0x4020_0000);
    let (all, within) = (false, None);
    let step = Command::Step { domain: 0, vcpu: 1, count: 1, until, record: false, all, within };
    request(step, &[4, 0, 1, 1, 1, 0x80, 0x80, 0x80, 0x81, 4, 0, 0, 0]);
    let (queues, configuration) =
        (Vec::from_slice(&[256]).unwrap(), Vec::from_slice(&[7]).unwrap());
    let (device, features) = (2, 1 << 32);
    let attach =
        Command::AttachDevice { domain: 1, slot: 31, device, features, queues, configuration };
    request(attach, &[35, 1, 31, 2, 0x80, 0x80, 0x80, 0x80, 0x10, 1, 0x80, 2, 1, 7]);
    request(Command::PowerOff, &[19]);
    request(Command::SetDetail { domain: 1, registers: true, memory: false }, &[20, 1, 1, 0]);
}

#[test]
fn commands_that_set_how_it_moves() {
    let monitor = Monitor::SingleStep;
    request(Command::SetMonitor { domain: 0, vcpu: None, monitor, on: true }, &[5, 0, 0, 0, 1]);
    let monitor = Monitor::PrivilegedCall;
    let command = Command::SetMonitor { domain: 0, vcpu: Some(3), monitor, on: false };
    request(command, &[5, 0, 1, 3, 1, 0]);
    for (policy, byte) in
        [(InterruptPolicy::Hold, 0), (InterruptPolicy::Over, 1), (InterruptPolicy::Into, 2)]
    {
        request(Command::SetInterruptPolicy { domain: 0, policy }, &[6, 0, byte]);
    }
    let policies: [(TimePolicy, &[u8]); 4] = [
        (TimePolicy::Stopped, &[7, 0, 0]),
        (TimePolicy::PerStep { ns: 200 }, &[7, 0, 1, 0xc8, 1]),
        (TimePolicy::Real, &[7, 0, 2]),
        (TimePolicy::Natural { seed: 300 }, &[7, 0, 3, 0xac, 2]),
    ];
    for (policy, bytes) in policies {
        request(Command::SetTimePolicy { domain: 0, policy }, bytes);
    }
    let policies: [(OthersPolicy, &[u8]); 4] = [
        (OthersPolicy::Stop, &[23, 0, 0]),
        (OthersPolicy::Run, &[23, 0, 1]),
        (OthersPolicy::Step { quantum: 200 }, &[23, 0, 2, 0xc8, 1]),
        (OthersPolicy::Freeze, &[23, 0, 3]),
    ];
    for (policy, bytes) in policies {
        request(Command::SetOthersPolicy { domain: 0, policy }, bytes);
    }
    request(Command::SetBreakpoint { domain: 0, place: Place::Va(Va(0x80)) }, &[8, 0, 0, 0x80, 1]);
    request(Command::ClearBreakpoint { domain: 0, place: Place::Ipa(Ipa(4)) }, &[9, 0, 1, 4]);
    let watch = |access| Watchpoint { address: Va(0x80), length: 8, access };
    let watchpoint = watch(WatchAccess::Read);
    let command = Command::SetWatchpoint { domain: 0, vcpu: 2, watchpoint };
    request(command, &[21, 0, 2, 0x80, 1, 8, 0]);
    for (access, byte) in [(WatchAccess::Write, 1), (WatchAccess::ReadWrite, 2)] {
        let command = Command::ClearWatchpoint { domain: 1, watchpoint: watch(access) };
        request(command, &[22, 1, 0x80, 1, 8, byte]);
    }
}

#[test]
fn commands_that_look_at_the_guest_and_change_it() {
    request(Command::ReadRegisters { domain: 0, vcpu: 1 }, &[10, 0, 1]);
    let registers = Registers { x: [1; 31], sp: 2, pc: 3, pstate: 0x3c5 };
    let mut bytes = vec![11, 0, 1];
    bytes.extend([1; 31]);
    bytes.extend([2, 3, 0xc5, 7]);
    request(Command::WriteRegisters { domain: 0, vcpu: 1, registers }, &bytes);
    request(Command::ReadSimd { domain: 0, vcpu: 1 }, &[12, 0, 1]);
    let register = 0xc080;
    let command = Command::ReadSystemRegister { domain: 0, vcpu: 1, register };
    request(command, &[13, 0, 1, 0x80, 0x81, 3]);
    let command = Command::WriteSystemRegister { domain: 0, vcpu: 1, register, value: 9 };
    request(command, &[14, 0, 1, 0x80, 0x81, 3, 9]);
    let place = Place::Va(Va(u64::MAX));
    let command = Command::ReadMemory { domain: 0, vcpu: 0, place, length: 1024 };
    let mut bytes = vec![15, 0, 0, 0];
    bytes.extend([0xff; 9]);
    bytes.extend([1, 0x80, 8]);
    request(command, &bytes);
    let (place, data) = (Place::Ipa(Ipa(1)), text(&[0, 255]));
    let command = Command::WriteMemory { domain: 0, vcpu: 0, place, bytes: data };
    request(command, &[16, 0, 0, 1, 1, 2, 0, 255]);
    request(Command::Translate { domain: 0, vcpu: 1, va: 5 }, &[17, 0, 1, 5]);
    request(Command::ConsoleInput { domain: 0, bytes: text(b"ls\n") }, b"\x12\0\x03ls\n");
    request(Command::VectorLength { domain: 0, vcpu: 1 }, &[25, 0, 1]);
    let registers: [(SveRegister, &[u8]); 3] =
        [(SveRegister::Z(31), &[0, 31]), (SveRegister::P(3), &[1, 3]), (SveRegister::Ffr, &[2])];
    for (register, bytes) in registers {
        let read = [&[26, 0, 1], bytes].concat();
        request(Command::ReadSve { domain: 0, vcpu: 1, register }, &read);
        let written = [&[27, 0, 1], bytes, &[2, 8, 9]].concat();
        let bytes = text(&[8, 9]);
        request(Command::WriteSve { domain: 0, vcpu: 1, register, bytes }, &written);
    }
}

#[test]
fn answers() {
    answer(Answer::Done, &[0]);
    let hello = Answer::Hello {
        version: 1,
        cpus: 4,
        domains: 1,
        vcpus: Vec::from_slice(&[2]).expect("short"),
        frequency_hz: 62_500_000,
        ring_bytes: 4096,
        mailbox: true,
    };
    answer(hello, &[1, 1, 4, 1, 1, 2, 0xa0, 0xd9, 0xe6, 0x1d, 0x80, 0x20, 1]);
    let states =
        [VcpuState::Off, VcpuState::Running, VcpuState::Stopped, VcpuState::Ended].map(|s| (s, 0));
    let vcpus = Answer::Vcpus(Vec::from_slice(&states).expect("short"));
    answer(vcpus, &[2, 4, 0, 0, 1, 0, 2, 0, 3, 0]);
    let mut bytes = vec![3];
    bytes.extend([0; 34]);
    answer(Answer::Registers(Registers::default()), &bytes);
    let mut bytes = vec![4];
    bytes.extend([0x81, 1].repeat(32));
    bytes.extend([3, 4]);
    let registers = SimdRegisters { v: [0x81; 32], fpcr: 3, fpsr: 4 };
    answer(Answer::Simd(registers.clone()), &bytes);
    bytes.splice(..1, [24, 0, 1]);
    request(Command::WriteSimd { domain: 0, vcpu: 1, registers }, &bytes);
    answer(Answer::Value(128), &[5, 0x80, 1]);
    answer(Answer::Memory(text(&[7, 8])), &[6, 2, 7, 8]);
    answer(Answer::VectorLength(VectorLength { longest: 256, current: 16 }), &[7, 0x80, 2, 16]);
}

#[test]
fn positions() {
    request(Command::ReadTimeline { domain: 1 }, &[28, 1]);
    let (position, clock, record) = (300, 7, true);
    for (turn, bytes) in [(None, &[0][..]), (Some(3), &[1, 3])] {
        let command = Command::RunUntil { domain: 0, position, clock, turn, record };
        request(command, &[&[29, 0, 0xac, 2, 7], bytes, &[1]].concat());
    }
    request(Command::Keep { domain: 1 }, &[30, 1]);
    request(Command::GoTo { domain: 1, checkpoint: 300 }, &[31, 1, 0xac, 2]);
    request(Command::Forget { checkpoint: 300 }, &[32, 0xac, 2]);
    let (ipa, bytes) = (Ipa(0x80), 8);
    let wrote = Command::Wrote { domain: 1, from: 2, to: 300, ipa, bytes };
    request(wrote, &[33, 1, 2, 0xac, 2, 0x80, 1, 8]);
    request(Command::Fork { domain: 1 }, &[34, 1]);
    let executed = [0, 300, 299, 0, 0, 0, 0, 0];
    let timeline =
        Timeline { position: 300, clock: 301, executed, registers: 5, ram: 0x80, ram_bytes: 4 };
    let bytes = [8, 0xac, 2, 0xad, 2, 0, 0xac, 2, 0xab, 2, 0, 0, 0, 0, 0, 5, 0x80, 1, 4];
    answer(Answer::Timeline(timeline), &bytes);
}

#[test]
fn refusals() {
    let all: [(Refusal, &[u8]); 12] = [
        (Refusal::Version(1), &[0, 1]),
        (Refusal::NoSuchVcpu, &[1]),
        (Refusal::NotStopped, &[2]),
        (Refusal::Off, &[3]),
        (Refusal::Ended, &[4]),
        (Refusal::AlreadySet(true), &[5, 1]),
        (Refusal::NoSuchRegister, &[6]),
        (Refusal::NotMapped(16), &[7, 16]),
        (Refusal::NoBreakpointLeft(6), &[8, 6]),
        (Refusal::Breakpoint, &[9]),
        (Refusal::Busy, &[10]),
        (Refusal::AArch32, &[11]),
    ];
    for (value, bytes) in all {
        refusal(value, bytes);
    }
    refusal(Refusal::RingInUse(3), &[12, 3]);
    refusal(Refusal::Watchpoint, &[13]);
    refusal(Refusal::NoMemory, &[14]);
    refusal(Refusal::PerStepWhileOthersRun, &[15]);
    refusal(Refusal::NoSteps, &[16]);
    refusal(Refusal::EmptyTurn, &[17]);
    refusal(Refusal::Misaligned(2), &[18, 2]);
    refusal(Refusal::WatchedRange, &[19]);
    refusal(Refusal::TooLong(1024), &[20, 0x80, 8]);
    refusal(Refusal::BadValue, &[21]);
    refusal(Refusal::Unsupported, &[22]);
    refusal(Refusal::TooMany(5), &[23, 5]);
    refusal(Refusal::NotANumber, &[24]);
    refusal(Refusal::NotCounted, &[25]);
    refusal(Refusal::NoSuchCheckpoint, &[26]);
    refusal(Refusal::WouldDiverge, &[27]);
}

#[test]
fn stops() {
    let reasons: [(StopReason, &[u8]); 13] = [
        (StopReason::Reset, &[0]),
        (StopReason::Paused, &[1]),
        (StopReason::Stepped, &[2]),
        (StopReason::Until, &[3]),
        (StopReason::Breakpoint, &[4]),
        (StopReason::PrivilegedCall { immediate: 0x1234 }, &[5, 0xb4, 0x24]),
        (StopReason::RingFull, &[6]),
        (StopReason::AArch32, &[7]),
        (StopReason::SwitchedOff, &[8]),
        (
            StopReason::Watchpoint { address: Va(0x80), access: WatchAccess::Write },
            &[9, 0x80, 1, 1],
        ),
        (StopReason::LeftRange, &[10]),
        (StopReason::BreakpointLost, &[11]),
        (StopReason::Reached, &[12]),
    ];
    let registers = Registers { x: [1; 31], sp: 2, pc: 3, pstate: 0x3c5 };
    for (reason, bytes) in reasons {
        let whole = [&[0, 0, 1], bytes, &[9], &[1; 31], &[2, 3, 0xc5, 7]].concat();
        let registers = registers.clone();
        event(Event::Stopped { domain: 0, vcpu: 1, reason, steps: 9, registers }, &whole);
    }
}

#[test]
fn what_a_domain_says_and_how_it_ends() {
    event(Event::Console { domain: 0, bytes: text(b"# ") }, b"\x01\0\x02# ");
    let programmed = Event::FlashProgrammed { domain: 0, offset: 0x1_0002, bytes: text(b"ab") };
    event(programmed, b"\x03\0\x82\x80\x04\x02ab");
    event(Event::FlashErased { domain: 0, offset: 4, bytes: 8 }, &[4, 0, 4, 8]);
    let ended = |ending| Event::DomainEnded { domain: 0, ending, moment: None };
    event(ended(DomainEnding::PoweredOff), &[2, 0, 0, 0]);
    let (ending, moment) = (DomainEnding::Reset, Some((300, 301)));
    let counted = Event::DomainEnded { domain: 0, ending, moment };
    event(counted, &[2, 0, 1, 1, 0xac, 2, 0xad, 2]);
    let kinds = [
        FaultKind::UnmappedAccess,
        FaultKind::UnmappedFetch,
        FaultKind::SystemError,
        FaultKind::UnknownException,
        FaultKind::DoesNotFit,
    ];
    for (number, kind) in (0..).zip(kinds) {
        let fault = GuestFault { vcpu: 1, pc: Va(4), esr: 0x82, address: 0, kind };
        event(ended(DomainEnding::Fault(fault)), &[2, 0, 2, 1, 4, 0x82, 1, 0, number, 0]);
    }
}

#[test]
fn every_message_fits_a_frame_at_its_largest() {
    let bytes = text(&[0; 1024]);
    let place = Place::Va(Va(u64::MAX));
    let command = Command::WriteMemory { domain: 255, vcpu: 255, place, bytes: bytes.clone() };
    let registers = Registers { x: [u64::MAX; 31], sp: u64::MAX, pc: u64::MAX, pstate: u64::MAX };
    let simd = SimdRegisters { v: [u128::MAX; 32], fpcr: u64::MAX, fpsr: u64::MAX };
    let write = Command::WriteSimd { domain: 255, vcpu: 255, registers: simd.clone() };
    let mut out = [0; MAX_FRAME];
    for command in [command, write] {
        assert!(encode(&Request { id: u32::MAX, command }, &mut out).is_ok());
    }
    for answer in [Answer::Registers(registers), Answer::Simd(simd), Answer::Memory(bytes)] {
        let response = FromHypervisor::Response { id: u32::MAX, result: Ok(answer) };
        assert!(encode(&response, &mut out).is_ok(), "{response:?}");
    }
}
