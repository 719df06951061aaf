//! Every operation of an engine against its definition.

use ndarray::{Array2, Array3, Array4, ArrayD, ArrayViewD, Axis, IxDyn, array};
use smartedit_core::engine::{Engine, Padding, Precision, Result};
use smartedit_core::tensor::HostTensor;
use smartedit_tests::tolerance::{Tolerance, view};

smartedit_tests::matrix!(engine:
    integers_survive_a_round_trip,
    linear,
    linear_of_one_row,
    conv2d,
    conv2d_of_many_channels,
    embedding,
    layer_norm,
    rms_norm,
    group_norm,
    activations,
    geglu,
    trigonometry,
    broadcast_sums_and_products,
    matmul,
    softmax,
    concat_and_narrow,
    unsqueeze_and_broadcast_batch,
    heads,
    spatial_layouts,
    nearest,
    pixel_shuffle,
    bilinear,
    attention,
    attention_of_many_queries,
    rotary,
    mismatched_shapes_are_errors,
);

/// Values in −1…1 without a pattern that an operation could hide in.
fn values(shape: &[usize], seed: u32) -> ArrayD<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12_345);
    ArrayD::from_shape_fn(IxDyn(shape), |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    })
}

fn up<E: Engine>(e: &E, array: &ArrayD<f32>) -> E::Tensor {
    e.upload(&array.clone().into()).unwrap_or_else(|e| panic!("{e}"))
}

fn down<E: Engine>(e: &E, tensor: Result<E::Tensor>) -> ArrayD<f32> {
    match tensor.and_then(|tensor| e.download(&tensor)) {
        Ok(HostTensor::F32(array)) => array,
        Ok(HostTensor::I64(_)) => panic!("floats are needed"),
        Err(error) => panic!("{error}"),
    }
}

#[track_caller]
fn close<E: Engine>(e: &E, found: Result<E::Tensor>, expected: ArrayViewD<'_, f32>) {
    let found = down(e, found);
    let place = std::panic::Location::caller().line();
    Tolerance::Close.check(Precision::F32, &format!("line {place}"), found.view(), expected);
}

fn matrix(array: ArrayD<f32>) -> Array2<f32> {
    array.into_dimensionality().expect("two dimensions")
}

fn integers_survive_a_round_trip<E: Engine>(e: &E) {
    let ids = HostTensor::from(array![[0i64, 7, 123_456_789_012]]);
    let back = e.upload(&ids).and_then(|tensor| e.download(&tensor)).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(back, ids);
}

fn linear<E: Engine>(e: &E) {
    let (x, w, b) = (values(&[2, 5, 7], 1), values(&[3, 7], 2), values(&[3], 3));
    let flat = matrix(x.to_shape((10, 7)).expect("rows").to_owned().into_dyn());
    let product = flat.dot(&matrix(w.clone()).t());
    let expected = (&product + &b).into_shape_with_order(IxDyn(&[2, 5, 3])).expect("rows");
    let (x, w, b) = (up(e, &x), up(e, &w), up(e, &b));
    close(e, e.linear(&x, &w, Some(&b)), expected.view());
    let expected = product.into_shape_with_order(IxDyn(&[2, 5, 3])).expect("rows");
    close(e, e.linear(&x, &w, None), expected.view());
}

fn linear_of_one_row<E: Engine>(e: &E) {
    let (x, w) = (values(&[1, 1, 133], 1), values(&[61, 133], 2));
    let row = matrix(x.index_axis(Axis(0), 0).to_owned());
    let expected = row.dot(&matrix(w.clone()).t()).insert_axis(Axis(0)).into_dyn();
    close(e, e.linear(&up(e, &x), &up(e, &w), None), expected.view());
}

fn conv2d<E: Engine>(e: &E) {
    let uneven = Padding { top: 0, left: 0, bottom: 1, right: 1 };
    for (kernel, stride, padding) in [
        (1, 1, Padding::all(0)),
        (3, 1, Padding::all(1)),
        (3, 2, Padding::all(1)),
        (3, 2, uneven),
        (2, 2, Padding::all(0)),
    ] {
        let (x, w) = (values(&[2, 3, 6, 5], 4), values(&[4, 3, kernel, kernel], 5));
        let b = values(&[4], 6);
        let size = |size: usize, before: usize, after: usize| (size + before + after - kernel) / stride + 1;
        let shape = (2, 4, size(6, padding.top, padding.bottom), size(5, padding.left, padding.right));
        let expected = Array4::from_shape_fn(shape, |(n, o, y, x0)| {
            let mut sum = b[[o]];
            for (c, ky, kx) in ndarray::indices((3, kernel, kernel)) {
                let row = (y * stride + ky).wrapping_sub(padding.top);
                let column = (x0 * stride + kx).wrapping_sub(padding.left);
                sum += x.get([n, c, row, column]).unwrap_or(&0.0) * w[[o, c, ky, kx]];
            }
            sum
        });
        let found = e.conv2d(&up(e, &x), &up(e, &w), Some(&up(e, &b)), stride, padding);
        close(e, found, view(&expected));
    }
}

/// Sizes at which engines choose other ways of computing.
fn conv2d_of_many_channels<E: Engine>(e: &E) {
    let (x, w, b) = (values(&[2, 50, 19, 18], 48), values(&[67, 50, 3, 3], 49), values(&[67], 50));
    let columns = Array2::from_shape_fn((50 * 9, 2 * 19 * 18), |(depth, cell)| {
        let (c, ky, kx) = (depth / 9, depth / 3 % 3, depth % 3);
        let (n, row, column) = (cell / (19 * 18), cell / 18 % 19 + ky, cell % 18 + kx);
        *x.get([n, c, row.wrapping_sub(1), column.wrapping_sub(1)]).unwrap_or(&0.0)
    });
    let kernels = matrix(w.to_shape((67, 50 * 9)).expect("kernels").to_owned().into_dyn());
    let product = kernels.dot(&columns);
    let expected = Array4::from_shape_fn((2, 67, 19, 18), |(n, o, row, column)| {
        product[[o, (n * 19 + row) * 18 + column]] + b[[o]]
    });
    let (w, b) = (up(e, &w), up(e, &b));
    close(e, e.conv2d(&up(e, &x), &w, Some(&b), 1, Padding::all(1)), view(&expected));
    let first = x.slice_axis(Axis(0), (0..1).into()).to_owned();
    let alone = expected.slice_axis(Axis(0), (0..1).into());
    close(e, e.conv2d(&up(e, &first), &w, Some(&b), 1, Padding::all(1)), view(&alone.to_owned()));
}

fn embedding<E: Engine>(e: &E) {
    let table = values(&[6, 4], 7);
    let ids = e.upload(&array![[5i64, 0, 3]].into()).unwrap_or_else(|e| panic!("{e}"));
    let expected = table.select(Axis(0), &[5, 0, 3]).insert_axis(Axis(0));
    close(e, e.embedding(&up(e, &table), &ids), expected.view());
}

/// Subtracts the mean of each row and divides by its standard deviation.
fn standardised(x: &Array2<f32>, eps: f32) -> Array2<f32> {
    let mut x = x.clone();
    for mut row in x.rows_mut() {
        let mean = row.mean().expect("a row is not empty");
        let variance = row.mapv(|v| (v - mean).powi(2)).mean().expect("a row is not empty");
        row.mapv_inplace(|v| (v - mean) / (variance + eps).sqrt());
    }
    x
}

fn layer_norm<E: Engine>(e: &E) {
    let (x, w, b) = (values(&[3, 37], 8) * 5.0 + 2.0, values(&[37], 9), values(&[37], 10));
    let expected = (standardised(&matrix(x.clone()), 1e-5) * &w + &b).into_dyn();
    close(e, e.layer_norm(&up(e, &x), &up(e, &w), &up(e, &b), 1e-5), expected.view());
}

fn rms_norm<E: Engine>(e: &E) {
    let (x, w) = (values(&[3, 37], 11) * 5.0, values(&[37], 12));
    let mut expected = matrix(x.clone());
    for mut row in expected.rows_mut() {
        let mean_square = row.mapv(|v| v * v).mean().expect("a row is not empty");
        row.mapv_inplace(|v| v / (mean_square + 1e-6).sqrt());
    }
    let expected = (expected * &w).into_dyn();
    close(e, e.rms_norm(&up(e, &x), &up(e, &w), 1e-6), expected.view());
}

fn group_norm<E: Engine>(e: &E) {
    let (x, w, b) = (values(&[2, 6, 5, 3], 13) * 3.0 + 40.0, values(&[6], 14), values(&[6], 15));
    let groups = matrix(x.to_shape((4, 45)).expect("groups").to_owned().into_dyn());
    let normed = standardised(&groups, 1e-6).into_shape_with_order((2, 6, 5, 3)).expect("pictures");
    let channel = |a: &ArrayD<f32>| a.to_shape((1, 6, 1, 1)).expect("channels").to_owned();
    let expected = normed * channel(&w) + channel(&b);
    let found = down(e, e.group_norm(&up(e, &x), 2, &up(e, &w), &up(e, &b), 1e-6));
    // The reference's own single-pass mean of values around 40 is what limits the digits here.
    Tolerance::Approximate.check(Precision::F32, "group_norm", found.view(), view(&expected));
}

fn activations<E: Engine>(e: &E) {
    let x = values(&[101], 16) * 6.0;
    let sigmoid = |v: f32| 1.0 / (1.0 + (-v).exp());
    let tensor = up(e, &x);
    close(e, e.sigmoid(&tensor), x.mapv(sigmoid).view());
    close(e, e.silu(&tensor), x.mapv(|v| v * sigmoid(v)).view());
    close(e, e.quick_gelu(&tensor), x.mapv(|v| v * sigmoid(1.702 * v)).view());
    close(e, e.relu(&tensor), x.mapv(|v| v.max(0.0)).view());
    // python: torch.nn.functional.gelu(torch.tensor([-3., -1., -.5, 0., .5, 1., 3.]))
    let x = array![-3.0f32, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0].into_dyn();
    let expected =
        array![-0.004_049_694_f32, -0.158_655_26, -0.154_268_77, 0.0, 0.345_731_24, 0.841_344_7, 2.995_950_2];
    close(e, e.gelu(&up(e, &x)), view(&expected));
}

fn geglu<E: Engine>(e: &E) {
    let x = values(&[2, 3, 74], 47) * 4.0;
    let halves = |start: usize| x.slice_axis(Axis(2), (start..start + 37).into()).to_owned();
    let gate = down(e, e.gelu(&up(e, &halves(37))));
    close(e, e.geglu(&up(e, &x), 37), (halves(0) * gate).view());
    assert!(e.geglu(&up(e, &x), 38).is_err());
}

fn trigonometry<E: Engine>(e: &E) {
    let x = values(&[51], 17) * 999.0;
    close(e, e.sin(&up(e, &x)), x.mapv(f32::sin).view());
    close(e, e.cos(&up(e, &x)), x.mapv(f32::cos).view());
    close(e, e.scale(&up(e, &x), -0.25), (x * -0.25).view());
}

fn broadcast_sums_and_products<E: Engine>(e: &E) {
    let a = values(&[2, 3, 4, 5], 18);
    for shape in [&[2, 3, 4, 5][..], &[1, 3, 4, 5], &[2, 3, 1, 1], &[4, 5], &[5]] {
        let b = values(shape, 19);
        close(e, e.add(&up(e, &a), &up(e, &b)), (&a + &b).view());
        close(e, e.mul(&up(e, &a), &up(e, &b)), (&a * &b).view());
    }
}

fn matmul<E: Engine>(e: &E) {
    let (a, b) = (values(&[2, 3, 4, 5], 20), values(&[2, 3, 5, 6], 21));
    let expected = Array4::from_shape_fn((2, 3, 4, 6), |(n, h, i, j)| {
        (0..5).map(|k| a[[n, h, i, k]] * b[[n, h, k, j]]).sum()
    });
    close(e, e.matmul(&up(e, &a), &up(e, &b)), view(&expected));
    let transposed = e.transpose(&up(e, &b)).and_then(|b| e.transpose(&b));
    close(e, transposed.and_then(|b| e.matmul(&up(e, &a), &b)), view(&expected));
}

fn softmax<E: Engine>(e: &E) {
    let x = values(&[4, 9], 22) * 50.0;
    let mut expected = matrix(x.clone());
    for mut row in expected.rows_mut() {
        let max = row.fold(f32::NEG_INFINITY, |max, &v| max.max(v));
        row.mapv_inplace(|v| (v - max).exp());
        let sum = row.sum();
        row /= sum;
    }
    close(e, e.softmax(&up(e, &x)), view(&expected));
}

fn concat_and_narrow<E: Engine>(e: &E) {
    let (a, b) = (values(&[2, 3, 4], 23), values(&[2, 5, 4], 24));
    let joined = ndarray::concatenate(Axis(1), &[a.view(), b.view()]).expect("one width");
    let found = e.concat(&[&up(e, &a), &up(e, &b)], 1).unwrap_or_else(|e| panic!("{e}"));
    close(e, Ok(found.clone()), joined.view());
    close(e, e.narrow(&found, 1, 3, 5), b.view());
    let part = joined.slice_axis(Axis(2), (1..3).into());
    close(e, e.narrow(&found, 2, 1, 2), part);
}

fn unsqueeze_and_broadcast_batch<E: Engine>(e: &E) {
    let (x, like) = (values(&[4, 5], 25), values(&[3, 2], 26));
    let expanded = e.unsqueeze(&up(e, &x), 0).and_then(|x| e.broadcast_batch_like(&x, &up(e, &like)));
    let expected = x.broadcast(IxDyn(&[3, 4, 5])).expect("a batch of 3");
    close(e, expanded, expected);
    close(e, e.unsqueeze(&up(e, &x), 2), x.view().insert_axis(Axis(2)));
}

fn heads<E: Engine>(e: &E) {
    let x = values(&[2, 3, 8], 27);
    let expected = Array4::from_shape_fn((2, 4, 3, 2), |(n, head, i, d)| x[[n, i, head * 2 + d]]);
    let split = e.split_heads(&up(e, &x), 4).unwrap_or_else(|e| panic!("{e}"));
    close(e, Ok(split.clone()), view(&expected));
    close(e, e.merge_heads(&split), x.view());
}

fn spatial_layouts<E: Engine>(e: &E) {
    let x = values(&[2, 3, 4, 5], 28);
    let expected = Array3::from_shape_fn((2, 20, 3), |(n, cell, c)| x[[n, c, cell / 5, cell % 5]]);
    let flat = e.flatten_spatial(&up(e, &x)).unwrap_or_else(|e| panic!("{e}"));
    close(e, Ok(flat.clone()), view(&expected));
    let like = up(e, &values(&[1, 7, 4, 5], 29));
    close(e, e.unflatten_spatial(&flat, &like), x.view());
    let square = values(&[2, 9, 3], 30);
    let expected = Array4::from_shape_fn((2, 3, 3, 3), |(n, c, y, x)| square[[n, y * 3 + x, c]]);
    close(e, e.unflatten_square(&up(e, &square), 3), view(&expected));
}

fn pixel_shuffle<E: Engine>(e: &E) {
    let x = values(&[2, 12, 3, 5], 34);
    let expected = Array4::from_shape_fn((2, 3, 6, 10), |(n, c, i, j)| {
        x[[n, 4 * c + 2 * (i % 2) + j % 2, i / 2, j / 2]]
    });
    close(e, e.pixel_shuffle(&up(e, &x), 2), view(&expected));
    assert!(e.pixel_shuffle(&up(e, &values(&[1, 3, 2, 2], 35)), 2).is_err());
}

fn nearest<E: Engine>(e: &E) {
    let x = values(&[2, 3, 4, 3], 31);
    let doubled = Array4::from_shape_fn((2, 3, 8, 6), |(n, c, i, j)| x[[n, c, i / 2, j / 2]]);
    close(e, e.upsample_nearest_2x(&up(e, &x)), view(&doubled));
    let like = up(e, &values(&[1, 1, 7, 5], 32));
    let resized = Array4::from_shape_fn((2, 3, 7, 5), |(n, c, i, j)| x[[n, c, i * 4 / 7, j * 3 / 5]]);
    close(e, e.upsample_nearest_like(&up(e, &x), &like), view(&resized));
}

/// ```python
/// x = torch.arange(6.).reshape(1, 1, 2, 3)
/// torch.nn.functional.interpolate(x, size=(3, 5), mode="bilinear", align_corners=False)
/// ```
fn bilinear<E: Engine>(e: &E) {
    let x = ArrayD::from_shape_vec(IxDyn(&[1, 1, 2, 3]), (0..6).map(|v| v as f32).collect()).expect("six");
    let like = up(e, &values(&[1, 1, 3, 5], 33));
    let expected =
        array![[[[0.0f32, 0.4, 1.0, 1.6, 2.0], [1.5, 1.9, 2.5, 3.1, 3.5], [3.0, 3.4, 4.0, 4.6, 5.0]]]];
    close(e, e.resize_bilinear_like(&up(e, &x), &like), view(&expected));
    let like = up(e, &values(&[1, 1, 1, 1], 34));
    close(e, e.resize_bilinear_like(&up(e, &x), &like), view(&array![[[[2.5f32]]]]));
}

/// Softmax of scaled and masked scores, times the values.
fn attended(
    q: &ArrayD<f32>,
    k: &ArrayD<f32>,
    v: &ArrayD<f32>,
    scale: f32,
    mask: Option<&ArrayD<f32>>,
) -> ArrayD<f32> {
    let &[batch, heads, queries, dim] = q.shape() else { panic!("four dimensions") };
    let keys = k.shape()[2];
    let mut out = ArrayD::zeros(q.raw_dim());
    for (n, h, i) in ndarray::indices((batch, heads, queries)) {
        let score = |j: usize| {
            let dot: f32 = (0..dim).map(|d| q[[n, h, i, d]] * k[[n, h, j, d]]).sum();
            dot * scale + mask.map_or(0.0, |mask| mask[[i, j]])
        };
        let scores: Vec<f32> = (0..keys).map(score).collect();
        let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f32 = scores.iter().map(|s| (s - max).exp()).sum();
        for d in 0..dim {
            let weighted = |j: usize| (scores[j] - max).exp() / sum * v[[n, h, j, d]];
            out[[n, h, i, d]] = (0..keys).map(weighted).sum();
        }
    }
    out
}

fn attention<E: Engine>(e: &E) {
    let (q, k, v) = (values(&[2, 3, 5, 4], 35), values(&[2, 3, 7, 4], 36), values(&[2, 3, 7, 4], 37));
    let mask =
        ArrayD::from_shape_fn(
            IxDyn(&[5, 7]),
            |index| {
                if index[1] <= index[0] + 2 { 0.0 } else { f32::NEG_INFINITY }
            },
        );
    let (tq, tk, tv) = (up(e, &q), up(e, &k), up(e, &v));
    close(e, e.attention(&tq, &tk, &tv, 0.5, None), attended(&q, &k, &v, 0.5, None).view());
    let masked = e.attention(&tq, &tk, &tv, 0.5, Some(&up(e, &mask)));
    close(e, masked, attended(&q, &k, &v, 0.5, Some(&mask)).view());
}

fn attention_of_many_queries<E: Engine>(e: &E) {
    let (q, k, v) = (values(&[1, 2, 150, 8], 38), values(&[1, 2, 33, 8], 39), values(&[1, 2, 33, 8], 40));
    let found = e.attention(&up(e, &q), &up(e, &k), &up(e, &v), 1.0, None);
    close(e, found, attended(&q, &k, &v, 1.0, None).view());
}

fn rotary<E: Engine>(e: &E) {
    let (x, angle) = (values(&[1, 2, 3, 6], 41), values(&[3, 6], 42));
    let (cos, sin) = (angle.mapv(f32::cos), angle.mapv(f32::sin));
    let expected = Array4::from_shape_fn((1, 2, 3, 6), |(n, h, i, d)| {
        let rotated = if d < 3 { -x[[n, h, i, d + 3]] } else { x[[n, h, i, d - 3]] };
        x[[n, h, i, d]] * cos[[i, d]] + rotated * sin[[i, d]]
    });
    close(e, e.rotary(&up(e, &x), 6, &up(e, &cos), &up(e, &sin)), view(&expected));
}

fn mismatched_shapes_are_errors<E: Engine>(e: &E) {
    let (a, b) = (up(e, &values(&[2, 3], 43)), up(e, &values(&[4, 5], 44)));
    let picture = up(e, &values(&[1, 3, 4, 4], 45));
    let kernel = up(e, &values(&[2, 5, 3, 3], 46));
    assert!(e.linear(&a, &b, None).is_err());
    assert!(e.add(&a, &b).is_err());
    assert!(e.matmul(&a, &b).is_err());
    assert!(e.narrow(&a, 1, 2, 5).is_err());
    assert!(e.concat(&[&a, &b], 0).is_err());
    assert!(e.conv2d(&picture, &kernel, None, 1, Padding::all(1)).is_err());
    let error = e.layer_norm(&a, &b, &b, 1e-5).err().expect("the weight does not fit").to_string();
    assert!(error.contains("layer_norm"), "{error}");
}
