//! A safe face of `gemm`.

use gemm::Parallelism;

/// A matrix in a slice, with its strides in elements.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// Rows one after the other.
    pub(super) fn new(data: &'a [f32], rows: usize, columns: usize) -> Self {
        assert!(data.len() >= rows * columns, "the slice holds the whole matrix");
        Self { data, rows, columns, row_stride: columns, column_stride: 1 }
    }

    pub(super) fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }
}

/// Where a product goes: `rows` rows of `columns` elements, `row_stride` apart.
pub(super) struct Destination<'a> {
    pub(super) data: &'a mut [f32],
    pub(super) row_stride: usize,
}

/// How many threads work on one product.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Threads {
    /// The calling one.
    One,
    /// All of rayon's.
    All,
}

/// `destination = a · b`, or `destination += a · b`.
#[allow(unsafe_code)]
pub(super) fn multiply(
    destination: &mut Destination<'_>,
    a: Matrix<'_>,
    b: Matrix<'_>,
    accumulate: bool,
    threads: Threads,
) {
    assert_eq!(a.columns, b.rows, "inner dimensions agree");
    let (m, n, k) = (a.rows, b.columns, a.columns);
    if m == 0 || n == 0 {
        return;
    }
    assert!(destination.row_stride >= n, "rows of the destination do not overlap");
    assert!(
        destination.data.len() >= (m - 1) * destination.row_stride + n,
        "the destination holds the product"
    );
    let parallelism = match threads {
        Threads::All if rayon::current_num_threads() > 1 => Parallelism::Rayon(0),
        _ => Parallelism::None,
    };
    // SAFETY: `Matrix::new` and the assertions above keep every accessed element inside its slice; the
    // destination is borrowed mutably and so overlaps neither operand.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            destination.data.as_mut_ptr(),
            1,
            destination.row_stride as isize,
            accumulate,
            a.data.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
}
