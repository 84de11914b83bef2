//! The tool's library as a Python module: what a session needs of it, as plain calls.
//!
//! The classes that people use are Python ([`stepwell/`](../stepwell)); here is what they are made
//! of, with numbers, strings, bytes and tuples going in and out. No call of these waits for longer
//! than it is told to, so Ctrl-C reaches Python between any two.
//!
//! Architecture Invariant: nothing is decided here that the commands decide otherwise: launching,
//! names, questions and recordings are the `stepwell` crate's.

mod machine;
mod recording;

use pyo3::prelude::*;

/// What cannot be done, in the words of the commands.
mod errors {
    #![allow(missing_docs, reason = "the macro makes types without any")]
    use pyo3::create_exception;
    use pyo3::exceptions::PyException;

    create_exception!(stepwell, StepwellError, PyException, "Something failed.");
    create_exception!(stepwell, Refused, StepwellError, "The guest, as it is now, cannot do that.");
    create_exception!(stepwell, NotLinux, StepwellError, "The guest does not tell that.");
}

/// Turns any error into Python's, causes included.
fn failed(error: impl Into<Box<dyn std::error::Error>>) -> PyErr {
    errors::StepwellError::new_err(with_causes(error.into().as_ref()))
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

/// The module.
#[pymodule]
fn _stepwell(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add("StepwellError", py.get_type::<errors::StepwellError>())?;
    module.add("Refused", py.get_type::<errors::Refused>())?;
    module.add("NotLinux", py.get_type::<errors::NotLinux>())?;
    module.add_class::<machine::Core>()?;
    module.add_class::<recording::Reader>()?;
    Ok(())
}
