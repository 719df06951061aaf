//! The subset of Python's pickle that describes tensors.
//!
//! A pickle is a program that builds values on a stack. This interpreter knows the instructions that
//! `torch.save` emits (protocols 2 to 5) and seven globals; anything else is an error, so a checkpoint can name
//! code but never run it. Values live in an arena and refer to each other by index: shared, deeply nested and
//! even cyclic values cost no more than the instructions that make them, and [`MAX_INSTRUCTIONS`] bounds those.

use std::collections::HashMap;

use crate::weights::Dtype;

/// Instructions a pickle may have; a checkpoint of 600 tensors has about 30 000.
pub const MAX_INSTRUCTIONS: usize = 1 << 20;
/// Bytes a string may have.
pub const MAX_STRING: usize = 1 << 16;
/// Dimensions a tensor may have.
pub const MAX_RANK: usize = 16;

/// A pickle is damaged, or is no tensor checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a tensor checkpoint: byte {offset} of the pickle {message}")]
pub struct PickleError {
    /// Where the interpreter stopped.
    pub offset: usize,
    /// Why.
    pub message: String,
}

type Result<T> = std::result::Result<T, PickleError>;

/// A tensor as a checkpoint describes it: a strided view of a storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredTensor {
    /// Name of the storage in the checkpoint.
    pub storage: String,
    /// Elements of the whole storage.
    pub storage_len: usize,
    /// Element type.
    pub dtype: Dtype,
    /// First element in the storage.
    pub offset: usize,
    /// The size of every dimension.
    pub shape: Vec<usize>,
    /// The distance of neighbours along every dimension, in elements.
    pub strides: Vec<usize>,
}

/// The tensors of a pickled `dict` of tensors, in its order.
///
/// # Errors
/// The pickle is damaged, refers to anything but tensors, exceeds a limit, or holds something else than a flat
/// `dict` from names to tensors.
pub fn tensors(pickle: &[u8]) -> Result<Vec<(String, StoredTensor)>> {
    let mut machine = Machine::new(pickle);
    let root = machine.run()?;
    machine.collect(root)
}

type Id = u32;

#[derive(Debug)]
enum Value<'a> {
    None,
    Bool,
    Int(i64),
    Float,
    Str(&'a str),
    List(Vec<Id>),
    Tuple(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Global(Global),
    Storage { dtype: Dtype, key: &'a str, len: usize },
    Tensor(Box<StoredTensor>),
}

impl Value<'_> {
    fn kind(&self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Bool => "a bool",
            Self::Int(_) => "an int",
            Self::Float => "a float",
            Self::Str(_) => "a string",
            Self::List(_) => "a list",
            Self::Tuple(_) => "a tuple",
            Self::Dict(_) => "a dict",
            Self::Global(_) => "a global",
            Self::Storage { .. } => "a storage",
            Self::Tensor(_) => "a tensor",
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Global {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    Storage(Dtype),
}

impl Global {
    fn find(module: &str, name: &str) -> Option<Self> {
        Some(match (module, name) {
            ("collections", "OrderedDict") => Self::OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2") => Self::RebuildTensor,
            ("torch._utils", "_rebuild_parameter") => Self::RebuildParameter,
            ("torch", storage) => Self::Storage(match storage.strip_suffix("Storage")? {
                "Double" => Dtype::F64,
                "Float" => Dtype::F32,
                "Half" => Dtype::F16,
                "BFloat16" => Dtype::BF16,
                "Long" => Dtype::I64,
                "Int" => Dtype::I32,
                "Short" => Dtype::I16,
                "Char" => Dtype::I8,
                "Byte" => Dtype::U8,
                "Bool" => Dtype::BOOL,
                _ => return None,
            }),
            _ => return None,
        })
    }
}

struct Machine<'a> {
    pickle: &'a [u8],
    position: usize,
    values: Vec<Value<'a>>,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

impl<'a> Machine<'a> {
    fn new(pickle: &'a [u8]) -> Self {
        Self {
            pickle,
            position: 0,
            values: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
        }
    }

    /// Runs to the end of the program; the value it leaves.
    fn run(&mut self) -> Result<Id> {
        for _ in 0..MAX_INSTRUCTIONS {
            let opcode = self.byte()?;
            if opcode == b'.' {
                return self.pop();
            }
            self.step(opcode)?;
        }
        Err(self.error(format!("is reached after {MAX_INSTRUCTIONS} instructions, the most that are run")))
    }

    fn step(&mut self, opcode: u8) -> Result<()> {
        match opcode {
            // PROTO, FRAME
            0x80 => {
                let protocol = self.byte()?;
                if !(2..=5).contains(&protocol) {
                    return Err(self.error(format!("asks for protocol {protocol}; 2 to 5 are read")));
                }
            }
            0x95 => drop(self.take(8)?),
            // MARK, POP, POP_MARK, DUP
            b'(' => self.marks.push(self.stack.len()),
            b'0' => drop(self.pop()?),
            b'1' => drop(self.pop_mark()?),
            b'2' => {
                let top = self.top()?;
                self.stack.push(top);
            }
            // NONE, NEWTRUE, NEWFALSE
            b'N' => self.push(Value::None),
            0x88 | 0x89 => self.push(Value::Bool),
            // BININT, BININT1, BININT2, LONG1, BINFLOAT
            b'J' => {
                let value = i32::from_le_bytes(self.array()?);
                self.push(Value::Int(value.into()));
            }
            b'K' => {
                let value = self.byte()?;
                self.push(Value::Int(value.into()));
            }
            b'M' => {
                let value = u16::from_le_bytes(self.array()?);
                self.push(Value::Int(value.into()));
            }
            0x8a => {
                let value = self.long()?;
                self.push(Value::Int(value));
            }
            b'G' => {
                self.take(8)?;
                self.push(Value::Float);
            }
            // SHORT_BINUNICODE, BINUNICODE, BINUNICODE8, SHORT_BINSTRING, BINSTRING
            0x8c | b'U' => {
                let len = self.byte()?;
                self.string(len.into())?;
            }
            b'X' | b'T' => {
                let len = u32::from_le_bytes(self.array()?);
                self.string(len.into())?;
            }
            0x8d => {
                let len = u64::from_le_bytes(self.array()?);
                self.string(len)?;
            }
            // EMPTY_TUPLE, TUPLE1, TUPLE2, TUPLE3, TUPLE
            b')' => self.push(Value::Tuple(Vec::new())),
            0x85..=0x87 => {
                let mut items = Vec::with_capacity(3);
                for _ in 0x85..=opcode {
                    items.push(self.pop()?);
                }
                items.reverse();
                self.push(Value::Tuple(items));
            }
            b't' => {
                let items = self.pop_mark()?;
                self.push(Value::Tuple(items));
            }
            // EMPTY_LIST, LIST, APPEND, APPENDS
            b']' => self.push(Value::List(Vec::new())),
            b'l' => {
                let items = self.pop_mark()?;
                self.push(Value::List(items));
            }
            b'a' => {
                let item = self.pop()?;
                self.extend_list(vec![item])?;
            }
            b'e' => {
                let items = self.pop_mark()?;
                self.extend_list(items)?;
            }
            // EMPTY_DICT, DICT, SETITEM, SETITEMS
            b'}' => self.push(Value::Dict(Vec::new())),
            b'd' => {
                let items = self.pop_mark()?;
                self.push(Value::Dict(Vec::new()));
                self.extend_dict(&items)?;
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.extend_dict(&[key, value])?;
            }
            b'u' => {
                let items = self.pop_mark()?;
                self.extend_dict(&items)?;
            }
            // BINPUT, LONG_BINPUT, MEMOIZE
            b'q' => {
                let key = self.byte()?;
                self.memoize(key.into())?;
            }
            b'r' => {
                let key = u32::from_le_bytes(self.array()?);
                self.memoize(key)?;
            }
            0x94 => {
                let key = self.memo.len() as u32;
                self.memoize(key)?;
            }
            // BINGET, LONG_BINGET
            b'h' => {
                let key = self.byte()?;
                self.recall(key.into())?;
            }
            b'j' => {
                let key = u32::from_le_bytes(self.array()?);
                self.recall(key)?;
            }
            // GLOBAL, STACK_GLOBAL
            b'c' => {
                let module = self.line()?;
                let name = self.line()?;
                self.global(module, name)?;
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                match (self.value(module), self.value(name)) {
                    (&Value::Str(module), &Value::Str(name)) => self.global(module, name)?,
                    _ => return Err(self.error("names a global by something else than strings")),
                }
            }
            // BINPERSID, REDUCE, BUILD
            b'Q' => self.persistent()?,
            b'R' => self.reduce()?,
            b'b' => {
                // The only state of a dict of tensors is `_metadata`: module versions, of no use here.
                self.pop()?;
                let top = self.top()?;
                if !matches!(self.value(top), Value::Dict(_)) {
                    return Err(self.error(format!("sets the attributes of {}", self.value(top).kind())));
                }
            }
            _ => {
                return Err(self.error(format!("is instruction {opcode:#04x}, which no tensor needs")));
            }
        }
        Ok(())
    }

    fn error(&self, message: impl Into<String>) -> PickleError {
        PickleError { offset: self.position, message: message.into() }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let rest = self.pickle.get(self.position..).unwrap_or_default();
        let bytes = rest.get(..len).ok_or_else(|| self.error("lies behind its end: it is truncated"))?;
        self.position += len;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    /// A little-endian two's-complement number of up to eight bytes.
    fn long(&mut self) -> Result<i64> {
        let len = usize::from(self.byte()?);
        if len > 8 {
            return Err(self.error(format!("starts a number of {len} bytes; 8 are the most")));
        }
        let bytes = self.take(len)?;
        let negative = bytes.last().is_some_and(|&byte| byte >= 0x80);
        let mut array = [if negative { 0xff } else { 0 }; 8];
        array[..len].copy_from_slice(bytes);
        Ok(i64::from_le_bytes(array))
    }

    fn string(&mut self, len: u64) -> Result<()> {
        let len = usize::try_from(len).ok().filter(|&len| len <= MAX_STRING).ok_or_else(|| {
            self.error(format!("starts a string of {len} bytes; {MAX_STRING} are the most"))
        })?;
        let bytes = self.take(len)?;
        let text = std::str::from_utf8(bytes).map_err(|_| self.error("ends a string that is not UTF-8"))?;
        self.push(Value::Str(text));
        Ok(())
    }

    /// Text up to the next line feed.
    fn line(&mut self) -> Result<&'a str> {
        let rest = self.pickle.get(self.position..).unwrap_or_default();
        let len = rest.iter().take(MAX_STRING).position(|&byte| byte == b'\n');
        let len = len.ok_or_else(|| self.error("starts a line without an end"))?;
        let bytes = self.take(len)?;
        self.take(1)?;
        std::str::from_utf8(bytes).map_err(|_| self.error("ends a line that is not UTF-8"))
    }

    fn value(&self, id: Id) -> &Value<'a> {
        // Ids come from `push` alone, and values are never removed.
        &self.values[id as usize]
    }

    fn push(&mut self, value: Value<'a>) {
        // At most one value per instruction, so their number fits.
        self.stack.push(self.values.len() as Id);
        self.values.push(value);
    }

    fn top(&self) -> Result<Id> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.last() {
            Some(&id) if self.stack.len() > floor => Ok(id),
            _ => Err(self.error("needs a value that is not on the stack")),
        }
    }

    fn pop(&mut self) -> Result<Id> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn pop_mark(&mut self) -> Result<Vec<Id>> {
        let mark = self.marks.pop().ok_or_else(|| self.error("needs a mark that is not on the stack"))?;
        Ok(self.stack.split_off(mark.min(self.stack.len())))
    }

    fn extend_list(&mut self, items: Vec<Id>) -> Result<()> {
        let top = self.top()?;
        match &mut self.values[top as usize] {
            Value::List(list) => list.extend(items),
            other => {
                let kind = other.kind();
                return Err(self.error(format!("appends to {kind}")));
            }
        }
        Ok(())
    }

    fn extend_dict(&mut self, items: &[Id]) -> Result<()> {
        let (pairs, rest) = items.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(self.error("sets a key without a value"));
        }
        let top = self.top()?;
        match &mut self.values[top as usize] {
            Value::Dict(dict) => dict.extend(pairs.iter().map(|&[key, value]| (key, value))),
            other => {
                let kind = other.kind();
                return Err(self.error(format!("sets an item of {kind}")));
            }
        }
        Ok(())
    }

    fn memoize(&mut self, key: u32) -> Result<()> {
        let top = self.top()?;
        self.memo.insert(key, top);
        Ok(())
    }

    fn recall(&mut self, key: u32) -> Result<()> {
        let id = self.memo.get(&key).copied();
        let id = id.ok_or_else(|| self.error(format!("recalls value {key}, which was never stored")))?;
        self.stack.push(id);
        Ok(())
    }

    fn global(&mut self, module: &str, name: &str) -> Result<()> {
        let global = Global::find(module, name).ok_or_else(|| {
            self.error(format!(
                "refers to `{}.{}`, which no tensor needs; nothing was executed",
                module.escape_debug(),
                name.escape_debug()
            ))
        })?;
        self.push(Value::Global(global));
        Ok(())
    }

    /// `("storage", type, name, device, elements)` becomes a storage.
    fn persistent(&mut self) -> Result<()> {
        let id = self.pop()?;
        let storage = match self.value(id) {
            Value::Tuple(items) => match items.as_slice() {
                &[tag, kind, key, _, len] => {
                    match (self.value(tag), self.value(kind), self.value(key), self.value(len)) {
                        (
                            Value::Str("storage"),
                            Value::Global(Global::Storage(dtype)),
                            Value::Str(key),
                            Value::Int(len),
                        ) => usize::try_from(*len).ok().map(|len| Value::Storage { dtype: *dtype, key, len }),
                        _ => None,
                    }
                }
                _ => None,
            },
            _ => None,
        };
        let storage = storage.ok_or_else(|| self.error("refers to something else than a storage"))?;
        self.push(storage);
        Ok(())
    }

    fn reduce(&mut self) -> Result<()> {
        let (arguments, callable) = (self.pop()?, self.pop()?);
        let (&Value::Global(global), Value::Tuple(arguments)) = (self.value(callable), self.value(arguments))
        else {
            let kind = self.value(callable).kind();
            return Err(self.error(format!("calls {kind}")));
        };
        match (global, arguments.as_slice()) {
            (Global::OrderedDict, []) => self.push(Value::Dict(Vec::new())),
            (Global::RebuildTensor, &[storage, offset, shape, strides, ..]) => {
                let tensor = self.tensor(storage, offset, shape, strides);
                let tensor = tensor.ok_or_else(|| self.error("describes a tensor that cannot be"))?;
                self.push(Value::Tensor(Box::new(tensor)));
            }
            (Global::RebuildParameter, &[tensor, ..]) if matches!(self.value(tensor), Value::Tensor(_)) => {
                self.stack.push(tensor);
            }
            _ => return Err(self.error("makes a value from arguments that do not fit")),
        }
        Ok(())
    }

    fn tensor(&self, storage: Id, offset: Id, shape: Id, strides: Id) -> Option<StoredTensor> {
        let Value::Storage { dtype, key, len } = self.value(storage) else { return None };
        let shape = self.sizes(shape)?;
        let strides = self.sizes(strides)?;
        (shape.len() == strides.len()).then_some(())?;
        let offset = self.size(offset)?;
        Some(StoredTensor {
            storage: (*key).to_owned(),
            storage_len: *len,
            dtype: *dtype,
            offset,
            shape,
            strides,
        })
    }

    fn size(&self, id: Id) -> Option<usize> {
        match self.value(id) {
            Value::Int(value) => usize::try_from(*value).ok(),
            _ => None,
        }
    }

    fn sizes(&self, id: Id) -> Option<Vec<usize>> {
        match self.value(id) {
            Value::Tuple(items) if items.len() <= MAX_RANK => {
                items.iter().map(|&item| self.size(item)).collect()
            }
            _ => None,
        }
    }

    fn collect(&self, root: Id) -> Result<Vec<(String, StoredTensor)>> {
        let Value::Dict(entries) = self.value(root) else {
            let kind = self.value(root).kind();
            return Err(self.error(format!("ends with {kind} instead of a dict of tensors")));
        };
        let entry = |&(key, value): &(Id, Id)| match (self.value(key), self.value(value)) {
            (Value::Str(name), Value::Tensor(tensor)) => Ok(((*name).to_owned(), tensor.as_ref().clone())),
            (Value::Str(name), other) => {
                Err(self
                    .error(format!("ends with {} as `{name}`; every entry must be a tensor", other.kind())))
            }
            (other, _) => Err(self.error(format!("ends with {} as a tensor's name", other.kind()))),
        };
        entries.iter().map(entry).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What `torch.save({"w": torch.zeros(2, 3)})` pickles.
    fn sample() -> Vec<u8> {
        let mut pickle =
            b"\x80\x02}q\x00X\x01\x00\x00\x00wq\x01ctorch._utils\n_rebuild_tensor_v2\nq\x02((".to_vec();
        pickle.extend(b"X\x07\x00\x00\x00storageq\x03ctorch\nFloatStorage\nq\x04X\x01\x00\x00\x000q\x05");
        pickle
            .extend(b"X\x03\x00\x00\x00cpuq\x06K\x06tq\x07QK\x00K\x02K\x03\x86q\x08K\x03K\x01\x86q\x09\x89");
        pickle.extend(b"ccollections\nOrderedDict\nq\x0a)Rq\x0btq\x0cRq\x0ds.");
        pickle
    }

    fn message(pickle: &[u8]) -> String {
        tensors(pickle).unwrap_err().to_string()
    }

    #[test]
    fn a_tensor_is_described_by_its_storage() {
        let tensors = tensors(&sample()).unwrap();
        let expected = StoredTensor {
            storage: "0".into(),
            storage_len: 6,
            dtype: Dtype::F32,
            offset: 0,
            shape: vec![2, 3],
            strides: vec![3, 1],
        };
        assert_eq!(tensors, [("w".to_owned(), expected)]);
    }

    #[test]
    fn protocol_4_reads_like_protocol_2() {
        let mut pickle = b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x01w\x94".to_vec();
        pickle.extend(b"\x8c\x0ctorch._utils\x94\x8c\x12_rebuild_tensor_v2\x94\x93\x94((");
        pickle.extend(b"\x8c\x07storage\x94\x8c\x05torch\x94\x8c\x0cFloatStorage\x94\x93\x94\x8c\x010\x94\x8c\x03cpu\x94");
        pickle.extend(b"K\x06t\x94QK\x00K\x02K\x03\x86\x94K\x03K\x01\x86\x94\x89\x8c\x0bcollections\x94");
        pickle.extend(b"\x8c\x0bOrderedDict\x94\x93\x94)R\x94t\x94R\x94s.");
        assert_eq!(tensors(&pickle).unwrap(), tensors(&sample()).unwrap());
    }

    #[test]
    fn code_is_named_and_never_run() {
        let text = message(b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R.");
        assert!(text.contains("`os.system`") && text.contains("nothing was executed"), "{text}");
        let text = message(b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x011\x85R.");
        assert!(text.contains("`builtins.eval`"), "{text}");
        let text = message(b"\x80\x02ctorch\nload\n.");
        assert!(text.contains("`torch.load`"), "{text}");
        // NEWOBJ, INST and OBJ would construct classes.
        for opcode in [0x81, b'i', b'o', 0x92] {
            assert!(message(&[0x80, 2, opcode]).contains("which no tensor needs"));
        }
    }

    #[test]
    fn nesting_and_sharing_cost_nothing() {
        let mut nested = vec![0x80, 2];
        nested.extend(std::iter::repeat_n(b']', 500_000));
        nested.extend(std::iter::repeat_n(b'a', 499_999));
        nested.push(b'.');
        assert!(message(&nested).contains("ends with a list"));

        // Each list holds the one before ten times: 10^1000 items if they were copied.
        let mut bomb = b"\x80\x02]q\x00".to_vec();
        for _ in 0..1000 {
            bomb.extend(b"](");
            bomb.extend(b"h\x00".repeat(10));
            bomb.extend(b"eq\x00");
        }
        bomb.push(b'.');
        assert!(message(&bomb).contains("ends with a list"));

        let cycle = b"\x80\x02]q\x00h\x00a.";
        assert!(message(cycle).contains("ends with a list"));
    }

    #[test]
    fn limits_hold() {
        let endless = vec![b'N'; MAX_INSTRUCTIONS + 1];
        assert!(message(&endless).contains("instructions"));
        assert!(message(b"\x80\x02X\xff\xff\xff\xff").contains("string of 4294967295 bytes"));
        assert!(message(b"\x80\x02\x8d\xff\xff\xff\xff\xff\xff\xff\xff").contains("string of"));
        assert!(message(b"\x80\x02\x8a\xff").contains("number of 255 bytes"));
        assert!(message(b"\x80\x02r\xff\xff\xff\xff.").contains("not on the stack"));
        assert!(message(b"\x80\x02h\x07.").contains("recalls value 7"));
        assert!(
            message(b"\x80\x02(N0u.").contains("not on the stack")
                || message(b"\x80\x02(N0u.").contains("item")
        );
    }

    #[test]
    fn every_truncation_is_an_error() {
        let pickle = sample();
        for len in 0..pickle.len() {
            assert!(tensors(&pickle[..len]).is_err(), "{len} bytes");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn no_mutation_panics(changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
            let mut pickle = sample();
            for (at, byte) in changes {
                let at = at.index(pickle.len());
                pickle[at] = byte;
            }
            let _ = tensors(&pickle);
        }

        #[test]
        fn no_program_panics(program in proptest::collection::vec(
            prop::sample::select(b"\x80\x02\x95(012N\x88J K\x00M\x8aG\x8cUXT\x8d)\x85\x86\x87t]lae}dsuqrh\x94jc\n\x93QRb.".to_vec()),
            0..200,
        )) {
            let _ = tensors(&program);
        }
    }
}
