//! Recordings, read run by run.

use crate::failed;
use pyo3::prelude::*;
use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;
use stepwell_arch::Va;
use stepwell_trace::{Record, Symbols};

/// A recording that is being read, and its names.
#[pyclass(unsendable)]
pub struct Reader {
    reader: stepwell_trace::Reader<BufReader<File>>,
    symbols: Symbols,
}

#[pymethods]
impl Reader {
    #[new]
    fn open(path: PathBuf) -> PyResult<Self> {
        let in_file = |error| failed(format!("{}: {error}", path.display()));
        let mut reader = stepwell_trace::Reader::open(&path).map_err(in_file)?;
        let symbols = reader.symbols().map_err(in_file)?;
        Ok(Self { reader, symbols })
    }

    /// What the recording says of itself: CPU, command line, policies, vCPUs.
    fn header(&self) -> (String, String, String, String, u8) {
        let header = self.reader.header();
        let (cpu, line) = (header.cpu_model.clone(), header.command_line.clone());
        let (irq, time) = (header.interrupt_policy.clone(), header.time_policy.clone());
        (cpu, line, irq, time, header.vcpus)
    }

    /// The next run: vCPU, first PC, instructions. Nothing at the end.
    fn next_run(&mut self) -> PyResult<Option<(u8, u64, u32)>> {
        loop {
            match self.reader.next_record().map_err(failed)? {
                Some(Record::Run { vcpu, pc, length }) => return Ok(Some((vcpu, pc.0, length))),
                Some(_) => {}
                None => return Ok(None),
            }
        }
    }

    /// The symbol at an address, and how far behind it that is.
    fn lookup(&self, address: u64) -> Option<(String, u64)> {
        self.symbols.lookup(Va(address)).map(|(name, offset)| (name.to_owned(), offset))
    }

    /// The address of a symbol.
    fn address_of(&self, name: &str) -> Option<u64> {
        self.symbols.address_of(name).map(|va| va.0)
    }
}
