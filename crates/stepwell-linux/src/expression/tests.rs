//! Expressions over the kernel that was made by hand.

use super::*;
use crate::sample::{HEAP, kernel, memory};

struct Here;

impl Scope for Here {
    fn current(&self) -> Option<u64> {
        Some(HEAP + 0x1000)
    }

    fn per_cpu_offset(&self) -> Option<u64> {
        Some(0x4000)
    }

    fn register(&self, name: &str) -> Option<u64> {
        (name == "x0").then_some(HEAP)
    }

    fn symbol(&self, name: &str) -> Option<u64> {
        (name == "a_function").then_some(0xffff_8000_0820_1000)
    }

    fn describe(&self, address: u64) -> Option<String> {
        (address == 0xffff_8000_0820_1000).then(|| "a_function".to_owned())
    }
}

fn value(text: &str) -> String {
    match print(text, &kernel(), &mut memory(), &Here) {
        Ok(text) => text,
        Err(error) => format!("error: {error}"),
    }
}

#[test]
fn members_pointers_and_casts_lead_on() {
    assert_eq!(value("current->comm"), "\"a process of not\"");
    assert_eq!(value("task(8)->tgid"), "7");
    assert_eq!(value("(*task(1)).comm"), "\"init\"");
    assert_eq!(value("init_task.comm[0]"), "115");
    assert_eq!(value("((struct task_struct *)x0)->pid"), "1");
    assert_eq!(value("((struct task_struct *)$x0)[0].pid"), "1");
    assert_eq!(value("&current->pid"), format!("{:#x}", HEAP + 0x1004));
    assert_eq!(value("module(a-module)->name"), "\"a_module\"");
    assert_eq!(value("__entry_task"), format!("{:#x}", HEAP + 0x1000));
    assert_eq!(value("a_function"), "0xffff800008201000 <a_function>");
    assert_eq!(value("0x10"), "0x10 (16)");
}

#[test]
fn structures_are_shown_member_by_member() {
    let text = value("*module(a_module)");
    assert!(text.starts_with("{\n  state = 0\n  list = {\n    next = 0x"), "{text}");
    assert!(text.contains("\n  name = \"a_module\"\n") && text.ends_with("\n}"), "{text}");
}

#[test]
fn what_is_wrong_is_told() {
    let told = [
        ("current.comm", "error: that has no members: for a pointer write ->"),
        ("current->nothing", "error: task_struct has no member nothing"),
        ("nothing", "error: nothing here is called nothing"),
        ("x0->pid", "error: that is no pointer: cast it, (struct NAME *)"),
        ("task(99)", "error: there is no task 99"),
        ("module(none)", "error: module none is not loaded"),
        ("f(1)", "error: functions are not called; there are task(PID), module(NAME)"),
        ("(struct none *)x0", "error: the kernel's types have no struct none"),
        ("current->", "error: the expression is not complete"),
        ("current->comm + 1", "error: unexpected \"+ 1\""),
        ("init_task.comm[99]", "error: the array has no such element"),
        ("*(struct task_struct *)8", "{"),
    ];
    for (text, wanted) in told {
        assert!(value(text).starts_with(wanted), "{text}: {}", value(text));
    }
    assert!(value("*(struct task_struct *)8").contains("pid = <address 0xc is not mapped"));
    assert!(value(&"*".repeat(1000)).contains("too deep"));
    assert!(value(&"x".repeat(2000)).contains("longer than"));
}
