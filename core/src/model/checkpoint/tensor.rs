//! A tensor of a mapped checkpoint.

use std::borrow::Cow;
use std::ops::Range;
use std::path::Path;

use memmap2::Mmap;

use crate::weights::Dtype;

/// Bytes handled at once when a tensor is read in pieces.
const CHUNK: usize = 1 << 20;

/// Where a tensor is in its file. Its elements are known to lie inside.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    /// Byte of the first element.
    pub(super) start: usize,
    pub(super) layout: Layout,
}

#[derive(Debug, Clone)]
pub(super) enum Layout {
    /// Row-major, without gaps.
    Contiguous,
    /// With these distances of neighbours, in elements.
    Strided(Vec<usize>),
}

impl Entry {
    fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    fn element_size(&self) -> usize {
        self.dtype.bitsize() / 8
    }
}

/// A tensor of a mapped checkpoint.
#[derive(Clone, Copy)]
pub struct TensorView<'a> {
    path: &'a Path,
    map: &'a Mmap,
    entry: &'a Entry,
}

impl<'a> TensorView<'a> {
    pub(super) fn new(path: &'a Path, map: &'a Mmap, entry: &'a Entry) -> Self {
        Self { path, map, entry }
    }

    /// The file that holds the tensor.
    pub fn path(&self) -> &'a Path {
        self.path
    }

    /// The element type.
    pub fn dtype(&self) -> Dtype {
        self.entry.dtype
    }

    /// The size of every dimension.
    pub fn shape(&self) -> &'a [usize] {
        &self.entry.shape
    }

    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.entry.elements()
    }

    /// Bytes of all elements.
    pub fn byte_len(&self) -> usize {
        (self.elements() * self.entry.dtype.bitsize()).div_ceil(8)
    }

    /// The elements in row-major order, little-endian; borrowed from the mapping unless they lie in another
    /// order.
    pub fn bytes(&self) -> Cow<'a, [u8]> {
        match &self.entry.layout {
            Layout::Contiguous => Cow::Borrowed(self.mapped(self.entry.start, self.byte_len())),
            Layout::Strided(strides) => {
                let mut bytes = Vec::with_capacity(self.byte_len());
                self.gather(strides, 0..self.elements(), &mut bytes);
                Cow::Owned(bytes)
            }
        }
    }

    /// Hands a range of the elements, in row-major order, to `each` in pieces of bounded size, and lets go of
    /// the memory behind every piece that was handled.
    ///
    /// # Errors
    /// The first error of `each`.
    pub fn for_each_chunk<E>(
        &self,
        range: Range<usize>,
        mut each: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let size = self.entry.element_size().max(1);
        let end = range.end.min(self.elements());
        let mut gathered = Vec::new();
        let mut next = range.start;
        while next < end {
            let chunk = next..end.min(next + CHUNK / size);
            match &self.entry.layout {
                Layout::Contiguous => {
                    let (start, len) = (self.entry.start + chunk.start * size, chunk.len() * size);
                    each(self.mapped(start, len))?;
                    self.release(start, len);
                }
                Layout::Strided(strides) => {
                    gathered.clear();
                    self.gather(strides, chunk.clone(), &mut gathered);
                    each(&gathered)?;
                }
            }
            next = chunk.end;
        }
        if let Layout::Strided(strides) = &self.entry.layout {
            let last: usize = self.shape().iter().zip(strides).map(|(dim, stride)| (dim - 1) * stride).sum();
            self.release(self.entry.start, (last + 1) * size);
        }
        Ok(())
    }

    fn mapped(&self, start: usize, len: usize) -> &'a [u8] {
        self.map.get(start..start + len).expect("entries are checked against the file when it is opened")
    }

    /// Appends a range of the elements, in row-major order.
    fn gather(&self, strides: &[usize], range: Range<usize>, bytes: &mut Vec<u8>) {
        let size = self.entry.element_size();
        for element in range {
            let mut rest = element;
            let mut offset = 0;
            for (&dim, &stride) in self.entry.shape.iter().zip(strides).rev() {
                offset += rest % dim * stride;
                rest /= dim;
            }
            bytes.extend_from_slice(self.mapped(self.entry.start + offset * size, size));
        }
    }

    /// Gives pages back to the operating system; they are read again from the file when touched.
    #[cfg(unix)]
    #[allow(unsafe_code)]
    fn release(&self, start: usize, len: usize) {
        // SAFETY: the mapping is read-only and backed by a file, so that discarding its pages changes no byte
        // that a later access sees. The range lies inside the mapping. Failure costs memory and nothing else.
        let _ = unsafe { self.map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, len) };
    }

    #[cfg(not(unix))]
    fn release(&self, _: usize, _: usize) {}
}
