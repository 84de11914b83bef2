//! Expressions as in C, over a guest's memory and its own types.
//!
//! `current->comm`, `task(1)->mm->mmap_base`, `((struct module *)0xffff800000be7040)->name`,
//! `*module(loop)`, `runqueues.nr_running`, `&init_task`, `x0`. There are no operators but those
//! that lead somewhere: `.`, `->`, `[N]`, `*`, `&` and casts. Nothing is ever assigned or called.

mod parse;
mod show;
mod value;

use crate::btf::TypeId;
use crate::{Error, Kernel, Memory, module_types};
use parse::Node;
use value::{Type, Value};

/// Longest expression that is read.
const TEXT_MAX: usize = 1024;

/// An expression has no value.
#[derive(Debug, thiserror::Error)]
pub enum ExpressionError {
    /// It cannot be read.
    #[error("{0}")]
    Syntax(String),
    /// It asks for what is not there.
    #[error("{0}")]
    Meaning(String),
    /// The guest does not tell.
    #[error(transparent)]
    Guest(#[from] Error),
}

/// What a name in an expression means, beyond what the kernel's types say.
pub trait Scope {
    /// Returns the address of the task that the vCPU executes.
    fn current(&self) -> Option<u64>;
    /// Returns what the vCPU adds to the address of a variable that each CPU has its own of.
    fn per_cpu_offset(&self) -> Option<u64>;
    /// Returns a register's contents.
    fn register(&self, name: &str) -> Option<u64>;
    /// Returns where a symbol is.
    fn symbol(&self, name: &str) -> Option<u64>;
    /// Returns the name of an address.
    fn describe(&self, address: u64) -> Option<String>;
}

/// Returns the value of an expression as text.
///
/// # Errors
///
/// [`ExpressionError`].
pub fn print(
    text: &str,
    kernel: &Kernel,
    memory: &mut dyn Memory,
    scope: &dyn Scope,
) -> Result<String, ExpressionError> {
    if text.len() > TEXT_MAX {
        return Err(ExpressionError::Syntax(format!("longer than {TEXT_MAX} letters")));
    }
    let node = parse::parse(text)?;
    let mut evaluation = Evaluation { kernel, memory, scope };
    match evaluation.print(&node) {
        Err(ExpressionError::Meaning(why)) => print_by_modules(&node, kernel, memory, scope, why),
        result => result,
    }
}

/// Evaluates what the kernel's own types give no meaning to by those of the first module that does.
/// `why` they give none is told where no module knows more.
fn print_by_modules(
    node: &Node,
    kernel: &Kernel,
    memory: &mut dyn Memory,
    scope: &dyn Scope,
    why: String,
) -> Result<String, ExpressionError> {
    let tables = match module_types::all(kernel, memory) {
        Err(error) if error.is_fatal() => return Err(error.into()),
        other => other.unwrap_or_default(),
    };
    let mut told = None;
    for table in tables {
        let kernel = &kernel.with_types(table);
        match (Evaluation { kernel, memory: &mut *memory, scope }).print(node) {
            Err(ExpressionError::Meaning(other)) if other != why => told = told.or(Some(other)),
            Err(ExpressionError::Meaning(_)) => {}
            result => return result,
        }
    }
    Err(ExpressionError::Meaning(told.unwrap_or(why)))
}

/// An expression being evaluated.
struct Evaluation<'a> {
    kernel: &'a Kernel,
    memory: &'a mut dyn Memory,
    scope: &'a dyn Scope,
}

impl Evaluation<'_> {
    fn print(&mut self, node: &Node) -> Result<String, ExpressionError> {
        let value = self.evaluate(node)?;
        self.show(&value)
    }

    fn evaluate(&mut self, node: &Node) -> Result<Value, ExpressionError> {
        match node {
            Node::Number(number) => Ok(Value::number(*number)),
            Node::Name(name) => self.name(name),
            Node::Call(function, argument) => self.call(function, argument),
            Node::Cast(name, pointers, of) => {
                let to = Type { id: self.type_named(name)?, pointers: *pointers };
                let of = self.evaluate(of)?;
                let number = self.read(&of)?;
                Ok(Value::Number { number, of: Some(to) })
            }
            Node::Dereference(of) => {
                let of = self.evaluate(of)?;
                self.dereference(&of)
            }
            Node::Address(of) => match self.evaluate(of)? {
                Value::Place { address, of, bits: None } => {
                    let of = Type { pointers: of.pointers.saturating_add(1), ..of };
                    Ok(Value::Number { number: address, of: Some(of) })
                }
                _ => Err(meaning("only what is in memory has an address")),
            },
            Node::Member(of, name, through) => {
                let of = self.evaluate(of)?;
                let of = if *through { self.dereference(&of)? } else { of };
                self.member(&of, name)
            }
            Node::Element(of, index) => {
                let of = self.evaluate(of)?;
                self.element(&of, *index)
            }
        }
    }

    fn name(&mut self, name: &str) -> Result<Value, ExpressionError> {
        let pointer_to = |id| Some(Type { id, pointers: 1 });
        if name == "current" {
            let at = self.scope.current().ok_or_else(|| meaning("no task is current here"))?;
            return Ok(Value::Number {
                number: at,
                of: pointer_to(self.structure("task_struct")?),
            });
        }
        if name == "init_task" {
            let of = Type { id: self.structure("task_struct")?, pointers: 0 };
            return Ok(Value::Place { address: self.kernel.init_task(), of, bits: None });
        }
        if let Some(number) = self.scope.register(name) {
            return Ok(Value::number(number));
        }
        let own = self.scope.per_cpu_offset().and_then(|offset| self.kernel.per_cpu(name, offset));
        if let Some((address, id)) = own {
            return Ok(Value::Place { address, of: Type { id, pointers: 0 }, bits: None });
        }
        let at = self.scope.symbol(name).map(Value::number);
        at.ok_or_else(|| meaning(&format!("nothing here is called {name}")))
    }

    /// Finds a task by its number, or a module by its name.
    fn call(&mut self, function: &str, argument: &str) -> Result<Value, ExpressionError> {
        let (number, name) = match function {
            "task" => {
                let pid = argument.parse().map_err(|_| meaning("write task(PID)"))?;
                let tasks = crate::task::all(self.kernel, self.memory)?;
                let found = tasks.iter().find(|task| task.pid == pid).map(|task| task.address);
                (found.ok_or(Error::NoTask(pid))?, "task_struct")
            }
            "module" => {
                let modules = crate::module::all(self.kernel, self.memory)?;
                let found = modules.iter().find(|module| module.is_called(argument));
                let found = found.map(|module| module.address);
                let missing = || meaning(&format!("module {argument} is not loaded"));
                (found.ok_or_else(missing)?, "module")
            }
            _ => {
                return Err(meaning("functions are not called; there are task(PID), module(NAME)"));
            }
        };
        let of = Type { id: self.structure(name)?, pointers: 1 };
        Ok(Value::Number { number, of: Some(of) })
    }

    fn structure(&self, name: &str) -> Result<TypeId, ExpressionError> {
        let found = self.kernel.btf().structure(name);
        found.ok_or_else(|| Error::NoMember(format!("struct {name}")).into())
    }

    fn type_named(&self, name: &str) -> Result<TypeId, ExpressionError> {
        let btf = self.kernel.btf();
        let found = match name.split_once(' ') {
            Some(("struct" | "union", name)) => btf.structure(name),
            Some(("enum", name)) => btf.named(name),
            _ if name == "void" => Some(TypeId(0)),
            _ => btf.named(name).or_else(|| btf.structure(name)),
        };
        found.ok_or_else(|| meaning(&format!("the kernel's types have no {name}")))
    }
}

fn meaning(text: &str) -> ExpressionError {
    ExpressionError::Meaning(text.to_owned())
}

#[cfg(test)]
mod tests;
