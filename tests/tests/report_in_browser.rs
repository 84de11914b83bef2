//! `stepwell report` in a real browser: it opens from a file, answers, and keeps quiet.

#![cfg(feature = "machine")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use stepwell_arch::Va;
use stepwell_tests::browser::Browser;
use stepwell_tests::process::run;
use stepwell_tests::stepwell::binary;
use stepwell_trace::{Header, Symbol, SymbolKind, Symbols, Writer};

const LIMIT: Duration = Duration::from_secs(180);
const READY: &str = "document.documentElement.dataset.ready === 'true'";

const MAIN: u64 = 0xffff_8000_0800_0000;
const WORK: u64 = MAIN + 0x1000;
const EVIL: u64 = MAIN + 0x2000;
const LOCK: u64 = MAIN + 0x3000;
const VECTOR: u64 = MAIN + 0x4000;

const NOP: u32 = 0xd503_201f;
const RET: u32 = 0xd65f_03c0;
const ERET: u32 = 0xd69f_03e0;
const READ_IAR: u32 = 0xd538_cc00;
const STXR: u32 = 0xc802_7c20;
const CBNZ_BACK: u32 = 0x35ff_ffe2;

/// A name that would end the script it is in, if it were let.
const EVIL_NAME: &str = "</script><img src=x onerror=console.error('broken-out')>";

fn bl(from: u64, to: u64) -> u32 {
    0x9400_0000 | ((to.wrapping_sub(from) / 4) as u32 & 0x03ff_ffff)
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Two vCPUs call functions, are interrupted, and one waits for a lock whose store-exclusive
/// fails twice.
fn recording(folder: &Path) -> PathBuf {
    let path = folder.join("small.stepwell");
    let header = Header {
        stepwell_version: "0".into(),
        cpu_model: "cortex-a57".into(),
        command_line: "console=<ttyAMA0> & \"quotes\"".into(),
        interrupt_policy: "into".into(),
        time_policy: "stopped".into(),
        recorded: "pc".into(),
        vcpus: 2,
    };
    let mut writer = Writer::create(&path, &header).unwrap();
    let names = [
        ("main_loop", MAIN),
        ("work", WORK),
        (EVIL_NAME, EVIL),
        ("queued_spin_lock_slowpath", LOCK),
        ("vectors", VECTOR),
    ];
    let kind = SymbolKind::Function;
    let symbol =
        |(name, address): (&str, u64)| Symbol { address, size: 0x1000, kind, name: name.into() };
    for round in 0..400_u64 {
        let vcpu = (round % 2) as u8;
        for (callee, length) in [(WORK, 3 + (round % 7) as u32), (EVIL, 2), (LOCK, 2)] {
            let call = MAIN + 4 * (callee - MAIN) / 0x1000;
            writer.run(vcpu, Va(call), 1).unwrap();
            if callee == LOCK {
                writer.run(vcpu, Va(LOCK), 2).unwrap();
                writer.run(vcpu, Va(LOCK), 2).unwrap();
            }
            let end = Va(callee + 0x100 - 4 * u64::from(length - 2));
            writer.run(vcpu, Va(callee), if callee == LOCK { 3 } else { 2 }).unwrap();
            writer.run(vcpu, end, length - 1).unwrap();
        }
        if round % 10 == 0 {
            writer.interrupt(vcpu, Va(MAIN)).unwrap();
            writer.run(vcpu, Va(VECTOR), 20 + round as u32).unwrap();
            writer.run(vcpu, Va(VECTOR + 0xf00), 1).unwrap();
        }
        writer.run(vcpu, Va(MAIN), 1).unwrap();
    }
    let calls = [NOP, bl(MAIN + 4, WORK), bl(MAIN + 8, EVIL), bl(MAIN + 12, LOCK)];
    writer.code(Va(MAIN), &words(&calls)).unwrap();
    for function in [WORK, EVIL, LOCK] {
        writer.code(Va(function), &words(&[NOP; 80])).unwrap();
        writer.code(Va(function + 4), &words(&[0x1400_0030])).unwrap();
        writer.code(Va(function + 0x100), &words(&[RET])).unwrap();
    }
    writer.code(Va(LOCK), &words(&[STXR, CBNZ_BACK, 0x1400_0030])).unwrap();
    writer.code(Va(VECTOR), &words(&[NOP, READ_IAR])).unwrap();
    writer.code(Va(VECTOR + 0xf00), &words(&[ERET])).unwrap();
    writer.symbols(&Symbols::new(names.map(symbol), None)).unwrap();
    writer.finish().unwrap();
    path
}

fn report(folder: &Path, recording: &Path) -> PathBuf {
    let page = folder.join("a report & more.html");
    let mut command = Command::new(binary());
    command.arg("report").arg(recording).arg("-o").arg(&page);
    let finished = run(&mut command, LIMIT).unwrap();
    assert!(finished.status.success(), "{}", finished.output());
    assert_eq!(finished.stderr, "", "no progress bar where nobody looks");
    page
}

/// Where a frame with this name is on the page.
fn frame(name: &str) -> String {
    format!("[...document.querySelectorAll('.frame')].find(f => f.textContent === '{name}')")
}

fn number(browser: &mut Browser, script: &str) -> f64 {
    browser.evaluate(script).unwrap().as_f64().unwrap_or_else(|| panic!("no number: {script}"))
}

fn quiet(browser: &Browser) {
    assert_eq!(browser.console(), Vec::<String>::new(), "the page wrote to the console");
    let elsewhere: Vec<String> = browser
        .requests()
        .into_iter()
        .filter(|url| !url.starts_with("file:") && !url.starts_with("data:"))
        .filter(|url| url != "about:blank")
        .collect();
    assert_eq!(elsewhere, Vec::<String>::new(), "the page asked for something");
}

fn zooms(browser: &mut Browser) {
    let width = format!("{}.getBoundingClientRect().width", frame("work"));
    let before = number(browser, &width);
    let whole = number(browser, "document.getElementById('flame-graph').clientWidth");
    assert!(before < whole / 2.0, "{before} of {whole}");
    browser.click(&frame("work")).unwrap();
    browser.wait("!document.getElementById('flame-reset').disabled").unwrap();
    assert!(number(browser, &width) > whole - 2.0, "a click zooms");
    let status = "document.getElementById('flame-status').textContent.includes('work')";
    browser.wait(status).unwrap();
    // The keyboard goes on from where the mouse was.
    browser.evaluate("document.querySelector('.frame[tabindex=\"0\"]').focus()").unwrap();
    browser.press("ArrowUp").unwrap();
    browser.wait("document.activeElement.textContent === 'main_loop'").unwrap();
    browser.press("Escape").unwrap();
    browser.wait("document.getElementById('flame-reset').disabled").unwrap();
    assert!((number(browser, &width) - before).abs() < 1.0, "and back");
}

fn searches(browser: &mut Browser) {
    browser.press("/").unwrap();
    browser.wait("document.activeElement.id === 'search'").unwrap();
    browser.type_text("WORK").unwrap();
    browser.wait("document.querySelectorAll('.frame.match').length >= 1").unwrap();
    let rows = "document.querySelectorAll('#functions-table tbody tr').length";
    assert_eq!(number(browser, rows), 1.0, "the table shows what was searched");
    browser
        .wait("/^1 function/.test(document.getElementById('search-status').textContent)")
        .unwrap();
    browser.press("Escape").unwrap();
    browser.wait("document.querySelectorAll('.frame.match').length === 0").unwrap();
}

fn timeline_zooms(browser: &mut Browser) {
    let status = "document.getElementById('timeline-status').textContent";
    let before = browser.evaluate(status).unwrap();
    assert!(before.as_str().unwrap().contains("vCPU 1"), "{before}");
    browser.click("document.getElementById('timeline-in')").unwrap();
    browser.wait(&format!("{status} !== {before}")).unwrap();
    browser.evaluate("document.getElementById('timeline-canvas').focus()").unwrap();
    browser.press("0").unwrap();
    browser.wait(&format!("{status} === {before}")).unwrap();
    // Something is drawn, in more than one colour.
    let colours = "(() => { const canvas = document.getElementById('timeline-canvas');
        const all = new Uint32Array(canvas.getContext('2d')
            .getImageData(0, 0, canvas.width, canvas.height).data.buffer);
        return new Set(all).size; })()";
    assert!(number(browser, colours) > 5.0);
}

/// Contrast of the text colours on their background, as WCAG 2 counts it.
const CONTRAST: &str = "(() => {
    const style = getComputedStyle(document.documentElement);
    const light = (name) => {
        const probe = document.createElement('i');
        probe.style.color = style.getPropertyValue(name);
        document.body.append(probe);
        const parts = getComputedStyle(probe).color.match(/[0-9.]+/g).slice(0, 3).map(Number);
        probe.remove();
        const [r, g, b] = parts.map((part) => part / 255)
            .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const pairs = [['--ink', '--paper'], ['--soft', '--paper'], ['--soft', '--sunken'],
        ['--soft', '--raised'], ['--accent', '--paper'], ['--warn', '--warn-wash']];
    return Math.min(...pairs.map(([text, ground]) => {
        const [one, other] = [light(text), light(ground)].sort((a, b) => b - a);
        return (one + 0.05) / (other + 0.05);
    }));
})()";

fn has_two_themes(browser: &mut Browser) {
    let ground = "getComputedStyle(document.body).backgroundColor";
    let light = browser.evaluate(ground).unwrap();
    assert!(number(browser, CONTRAST) >= 4.5);
    browser.click("document.getElementById('theme')").unwrap();
    browser.wait(&format!("{ground} !== {light}")).unwrap();
    browser.wait("document.documentElement.dataset.theme === 'dark'").unwrap();
    assert!(number(browser, CONTRAST) >= 4.5);
}

/// Every control has a name, every chart a role, and headings do not skip a level.
fn is_accessible(browser: &mut Browser) {
    let nameless = "[...document.querySelectorAll('button, input, [tabindex], canvas')]
        .filter((it) => !(it.textContent.trim() || it.getAttribute('aria-label')
            || it.labels?.length)).map((it) => it.outerHTML)";
    assert_eq!(browser.evaluate(nameless).unwrap().to_string(), "[]");
    let levels = "[...document.querySelectorAll('h1, h2, h3')].map((it) => Number(it.tagName[1]))";
    let levels = browser.evaluate(levels).unwrap();
    let levels: Vec<i64> = levels.as_array().unwrap().iter().filter_map(|it| it.as_i64()).collect();
    assert_eq!(levels[0], 1);
    assert!(levels.windows(2).all(|pair| pair[1] - pair[0] <= 1), "{levels:?}");
}

#[test]
fn the_page_answers_and_keeps_quiet() {
    let folder = tempfile::tempdir().unwrap();
    let page = report(folder.path(), &recording(folder.path()));
    let mut browser = Browser::start().unwrap();
    browser.open(&page, 1280, 900, READY).unwrap();
    quiet(&browser);
    zooms(&mut browser);
    searches(&mut browser);
    timeline_zooms(&mut browser);
    is_accessible(&mut browser);
    has_two_themes(&mut browser);
    // What a guest calls itself is text, wherever it is.
    assert_eq!(number(&mut browser, "document.images.length"), 0.0);
    let shown = format!("document.body.textContent.includes({:?})", EVIL_NAME);
    browser.wait(&shown).unwrap();
    // The locks: one store-exclusive in two places fails twice a round.
    browser
        .wait("document.getElementById('locks-body').textContent.includes('800 failed')")
        .unwrap();
    browser
        .wait("document.getElementById('interrupts-body').textContent.includes('40 interrupts')")
        .unwrap();
    quiet(&browser);
}

#[test]
fn a_phone_shows_it_without_scrolling_sideways() {
    let folder = tempfile::tempdir().unwrap();
    let page = report(folder.path(), &recording(folder.path()));
    let mut browser = Browser::start().unwrap();
    browser.open(&page, 360, 740, READY).unwrap();
    browser.evaluate("document.querySelector('.facts summary').click()").unwrap();
    browser.evaluate("document.querySelector('.opener').click()").unwrap();
    assert_eq!(number(&mut browser, "document.documentElement.scrollWidth"), 360.0);
    let wide =
        "[...document.querySelectorAll('main *')].filter((it) => !it.closest('.scroll, .plot')
        && it.getBoundingClientRect().right > 360.5).map((it) => it.outerHTML.slice(0, 80))";
    assert_eq!(browser.evaluate(wide).unwrap().to_string(), "[]");
    zooms(&mut browser);
    quiet(&browser);
}

#[test]
fn an_empty_recording_has_a_page_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("empty.stepwell");
    Writer::create(&path, &Header::default()).unwrap().finish().unwrap();
    let page = report(folder.path(), &path);
    let mut browser = Browser::start().unwrap();
    browser.open(&page, 800, 600, READY).unwrap();
    browser.wait("document.querySelectorAll('.empty').length >= 5").unwrap();
    quiet(&browser);
}
