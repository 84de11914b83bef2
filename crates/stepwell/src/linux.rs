//! What was learnt of a Linux guest: its kernel, its modules, and the names of what is in these.
//!
//! A kernel is asked only once somebody wants to know: reading its types takes a tenth of a second.
//! Modules come and go while the guest runs, so what is known of one is compared with the guest
//! each time that it is stopped in it.

use std::sync::Arc;
use stepwell_arch::{Ipa, Va};
use stepwell_debuggee::{Debuggee, VcpuId};
use stepwell_linux::module::{self, State};
use stepwell_linux::{Cached, Error, Guest, Kernel, Memory, Module};
use stepwell_trace::{Symbol, SymbolKind, Symbols};

/// Why a question about Linux has no answer.
#[derive(Debug, thiserror::Error)]
pub enum LinuxError {
    /// The kernel is none that can be asked.
    #[error("{0}")]
    Kernel(String),
    /// This guest does not answer.
    #[error(transparent)]
    Guest(#[from] Error),
}

impl LinuxError {
    /// Tells whether the debuggee is lost.
    #[must_use]
    pub const fn is_fatal(&self) -> bool {
        matches!(self, Self::Guest(error) if error.is_fatal())
    }
}

/// The image that a guest was started from.
#[derive(Clone, Copy, Debug)]
pub struct Image<'a> {
    /// Its bytes, as loaded.
    pub bytes: &'a [u8],
    /// Its symbols, as linked.
    pub symbols: &'a Symbols,
    /// Where its first byte was linked.
    pub base: u64,
    /// Where its first byte was loaded.
    pub load: Ipa,
    /// How far it runs from where it was linked.
    pub moved_by: u64,
}

/// What was learnt of a Linux guest.
#[derive(Clone, Debug, Default)]
pub struct Linux {
    kernel: Option<Result<Arc<Kernel>, String>>,
    modules: Vec<Arc<Loaded>>,
    /// How often they have changed.
    seen: u64,
}

/// A module and its symbols.
#[derive(Debug)]
struct Loaded {
    module: Module,
    symbols: Symbols,
}

/// A guest's kernel, to be asked while the guest is stopped.
#[derive(Clone, Debug)]
pub struct Running {
    kernel: Arc<Kernel>,
    /// Where its first task was loaded.
    loaded: Ipa,
}

impl Running {
    /// Returns what its image says.
    #[must_use]
    pub fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    /// Asks something of the guest.
    ///
    /// # Errors
    ///
    /// Those of the question, and that the kernel does not run there.
    pub fn ask<R, E: From<Error>>(
        &self,
        debuggee: &mut dyn Debuggee,
        vcpu: VcpuId,
        question: impl FnOnce(&Kernel, &mut dyn Memory) -> Result<R, E>,
    ) -> Result<R, E> {
        let guest = Guest::new(debuggee, vcpu, Va(self.kernel.init_task()), self.loaded)?;
        question(&self.kernel, &mut Cached::new(guest))
    }
}

impl Linux {
    /// Reads the kernel, the first time.
    ///
    /// # Errors
    ///
    /// [`LinuxError::Kernel`], with what is missing.
    pub fn running(&mut self, image: &Image<'_>) -> Result<Running, LinuxError> {
        let read = || {
            let kernel = Kernel::new(image.bytes, image.base, image.symbols, image.moved_by);
            kernel.map(Arc::new).map_err(|error| error.to_string())
        };
        let kernel = self.kernel.get_or_insert_with(read).clone().map_err(LinuxError::Kernel)?;
        // Not the image's first byte: a kernel that runs has its header mapped no more.
        let within = kernel.init_task().wrapping_sub(image.moved_by).wrapping_sub(image.base);
        Ok(Running { kernel, loaded: image.load.offset(within) })
    }

    /// Learns which modules there are.
    ///
    /// # Errors
    ///
    /// [`LinuxError`]; what was known is known no more then.
    pub fn find_modules(
        &mut self,
        image: &Image<'_>,
        debuggee: &mut dyn Debuggee,
        vcpu: VcpuId,
    ) -> Result<(), LinuxError> {
        let known = std::mem::take(&mut self.modules);
        self.modules = self.running(image)?.ask(debuggee, vcpu, |kernel, memory| {
            let modules = module::all(kernel, memory)?;
            let modules = modules.into_iter().map(|module| load(kernel, memory, module, &known));
            modules.collect::<Result<Vec<_>, Error>>()
        })?;
        let same = |(one, other): (&Arc<Loaded>, &Arc<Loaded>)| Arc::ptr_eq(one, other);
        if known.len() != self.modules.len() || !known.iter().zip(&self.modules).all(same) {
            self.seen += 1;
        }
        Ok(())
    }

    /// Learns of the module that a vCPU is stopped in at `pc`, if it is one.
    ///
    /// # Errors
    ///
    /// [`LinuxError`].
    pub fn notice(
        &mut self,
        image: &Image<'_>,
        debuggee: &mut dyn Debuggee,
        vcpu: VcpuId,
        pc: Va,
    ) -> Result<(), LinuxError> {
        if let Some(known) = self.module_at(pc).cloned() {
            let found = self.running(image)?.ask(debuggee, vcpu, |kernel, memory| {
                Module::read(kernel, memory, known.module.address)
            });
            match found {
                Ok(found) if found.is_like(&known.module) => return Ok(()),
                Err(error) if error.is_fatal() => return Err(error.into()),
                Ok(_) | Err(_) => {}
            }
        }
        self.find_modules(image, debuggee, vcpu)
    }

    /// Returns a number that changes whenever other modules, or other symbols of them, are known.
    #[must_use]
    pub const fn seen(&self) -> u64 {
        self.seen
    }

    /// Tells whether an address is in a known module of this name.
    #[must_use]
    pub fn is_in(&self, module: &str, va: Va) -> bool {
        self.module_at(va).is_some_and(|loaded| loaded.module.is_called(module))
    }

    fn module_at(&self, va: Va) -> Option<&Arc<Loaded>> {
        self.modules.iter().find(|loaded| loaded.module.contains(va.0))
    }

    /// Returns `module:symbol` and how far behind it an address in a module is.
    #[must_use]
    pub fn describe(&self, va: Va) -> Option<(String, u64)> {
        let loaded = self.module_at(va)?;
        let name = &loaded.module.name;
        Some(match loaded.symbols.lookup(va) {
            Some((symbol, offset)) => (format!("{name}:{symbol}"), offset),
            None => (name.clone(), va.0.wrapping_sub(loaded.module.base())),
        })
    }

    /// Returns where a known module has a symbol; nothing where the module is not known.
    #[must_use]
    pub fn resolve(&self, module: &str, symbol: &str) -> Option<Option<Va>> {
        let loaded = self.modules.iter().find(|loaded| loaded.module.is_called(module))?;
        let init = (symbol == INIT && loaded.module.init != 0).then_some(Va(loaded.module.init));
        Some(loaded.symbols.address_of(symbol).or(init))
    }

    /// Returns names of a module that are close to one that it does not have.
    #[must_use]
    pub fn suggestions(&self, module: &str, symbol: &str, count: usize) -> Vec<String> {
        let named = self.modules.iter().find(|loaded| loaded.module.is_called(module));
        let close = named.map(|loaded| loaded.symbols.suggestions(symbol, count));
        close.unwrap_or_default().into_iter().map(|name| format!("{module}:{name}")).collect()
    }

    /// Returns the symbols of all known modules, as they are shown.
    pub fn symbols(&self) -> impl Iterator<Item = Symbol> {
        self.modules.iter().flat_map(|loaded| {
            let name = &loaded.module.name;
            let called = move |one: &Symbol| format!("{name}:{}", one.name);
            loaded.symbols.iter().map(move |one| Symbol { name: called(one), ..one.clone() })
        })
    }
}

/// What each module calls the function that sets it up.
const INIT: &str = "init_module";

/// Reads the symbols of a module, unless they are known.
fn load(
    kernel: &Kernel,
    memory: &mut dyn Memory,
    module: Module,
    known: &[Arc<Loaded>],
) -> Result<Arc<Loaded>, Error> {
    if let Some(same) = known.iter().find(|loaded| loaded.module.is_like(&module)) {
        return Ok(Arc::clone(same));
    }
    let symbols = match module.symbols(kernel, memory) {
        Ok(symbols) => symbols,
        Err(error) if error.is_fatal() => return Err(error),
        // Its place and its name are worth having without.
        Err(_) => Symbols::default(),
    };
    let init = (symbols.address_of(INIT).is_none() && module.state == State::Coming).then(|| {
        let (size, kind, name) = (0, SymbolKind::Function, INIT.to_owned());
        Symbol { address: module.init, size, kind, name }
    });
    let symbols = match init {
        Some(init) => symbols.merged(&Symbols::new([init], None)),
        None => symbols,
    };
    Ok(Arc::new(Loaded { module, symbols }))
}
