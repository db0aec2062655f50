# mypy: allow-untyped-defs, allow-untyped-calls
r"""Derivatives of one tile of pixels with respect to the parameters, by hand, each a loop over lanes.

With y an intensity, v = C^-1 D and G = dy/dC (symmetric),

.. math:: \frac{dy}{dD} = -y v, \quad G = \frac{y}{2}(v v^\mathsf{T} - C^{-1}), \quad
    \frac{dy}{dE} = [q]_\times^\mathsf{T} G [q]_\times, \quad
    \frac{dy}{dq_k} = 2 \epsilon_{ijk} (E [q]_\times^\mathsf{T} G)_{ij} - \frac{dy}{dD_k}, \quad
    \frac{dy}{dA^*} = \frac{dy}{dq} h_0^\mathsf{T}

With m = C^-1 e for each edge e of the pixel, tau = m D, alpha = m e and flat = tau^4 - 6 alpha tau^2 + 3 alpha^2,

.. math:: \frac{dy}{d\tau} = -2 y \tau (\tau^2 - 3\alpha), \quad \frac{dy}{d\alpha} = 3 y (\tau^2 - \alpha)

add to these; in a rotation C + w^2/3 u u^T takes the place of C there. For a rotation, with t = C^-1 u and the mean
M(a, b, c), stand the same sums of products with M's derivatives. Of a symmetric matrix the derivative with respect to
an entry off the diagonal is twice that of the matrix.
"""

import math

from ..compiling import lane_sum, lanes
from .functions import exponential, rotation_means
from .tile import (
    AREA,
    B_ISO,
    BANDWIDTH,
    BASIS,
    BY_EDGES,
    BY_PIXEL,
    BY_Q,
    BY_S,
    BY_SPREAD,
    COLUMNS,
    DENSITY,
    DEPTHS,
    EDGES,
    FAST,
    FAST_EDGE,
    FLIGHT,
    H0,
    INVERSE,
    MOSAIC,
    NORMAL,
    ORIGIN,
    PER_WAVELENGTH,
    POLARIZATION,
    SCATTERING,
    SEED,
    SLOW,
    SLOW_EDGE,
    SPREAD,
    TOTAL,
    TRANSMITTED,
    WAVE,
    D,
    Q,
    T,
    _across,
    _add,
    _cross,
    _dot,
    _flattening,
    _inverse_parts,
    _less,
    _matrix,
    _matrix_at,
    _outer,
    _plus,
    _put_matrix,
    _put_vector,
    _scaled,
    _times,
    _turned,
    _vector,
    _vector_at,
)


@lanes
def _add_vector(x, row, i, v):
    _put_vector(x, row, i, _plus(_vector_at(x, row, i), v))


@lanes
def _add_matrix(x, row, i, m):
    _put_matrix(x, row, i, _add(_matrix_at(x, row, i), m))


@lanes
def _doubled(m):
    """Derivative with respect to the six entries from the symmetric one."""
    return m[0], m[1], m[2], m[3] + m[3], m[4] + m[4], m[5] + m[5]


@lanes
def _halved(m):
    """The symmetric derivative from that with respect to the six entries, times two."""
    return m[0] + m[0], m[1] + m[1], m[2] + m[2], m[3], m[4], m[5]


@lanes
def _products(v, w):
    """v w^T + w v^T."""
    x, y, z = v[0] * w[0], v[1] * w[1], v[2] * w[2]
    yz, xz, xy = v[1] * w[2] + v[2] * w[1], v[0] * w[2] + v[2] * w[0], v[0] * w[1] + v[1] * w[0]
    return x + x, y + y, z + z, yz, xz, xy


@lanes
def _weighted(m, s):
    return m[0] * s, m[1] * s, m[2] * s, m[3] * s, m[4] * s, m[5] * s


@lanes
def clear(x, first, rows):
    """Zeros."""
    for i in range(rows * T):
        x[first + i] = 0


@lanes
def _edge_slopes(y, e, m, v, d, three):
    """What the flattening along an edge adds to the derivatives in D, e and C, m and v being C^-1 e and C^-1 D."""
    tau, alpha = _dot(m, d), _dot(m, e)
    tau2, yt = tau * tau, y * tau
    by_tau, by_alpha = (yt + yt) * (three * alpha - tau2), three * y * (tau2 - alpha)
    along = _scaled(m, by_alpha)
    w = _plus(along, _scaled(v, by_tau))
    return _scaled(m, by_tau), _plus(w, along), _products(m, w)


@lanes
def add_slopes(b, constant, height, column, half, one):
    """One Gaussian: derivatives in D, C and its height, added to the columns from ``column`` on."""
    three = one + one + one
    for i in range(T):
        d, e, f = _vector_at(b, D, i), _vector_at(b, EDGES, i), _vector_at(b, EDGES + 3 * T, i)
        adjugate, determinant = _inverse_parts(_add(_matrix_at(b, SPREAD, i), constant))
        inverse = one / determinant
        v = _scaled(_times(adjugate, d), inverse)
        m, n = _scaled(_times(adjugate, e), inverse), _scaled(_times(adjugate, f), inverse)
        flat = _flattening(_dot(m, d), _dot(m, e), three) + _flattening(_dot(n, d), _dot(n, f), three)
        density = math.sqrt(inverse) * exponential(-half * (_dot(d, v) + flat))
        y = b[SEED + i] * density * height
        e_by_d, by_e, e_g = _edge_slopes(y, e, m, v, d, three)
        f_by_d, by_f, f_g = _edge_slopes(y, f, n, v, d, three)
        g = _weighted(_add(_outer(v, one), _weighted(adjugate, -inverse)), half * y)
        g = _add(g, _weighted(_add(e_g, f_g), -half))
        by_q = _less(_scaled(v, y), _plus(e_by_d, f_by_d))
        b[DENSITY + i] += density * height
        _add_vector(b, BY_Q, i, by_q)
        _add_vector(b, BY_S, i, _scaled(by_q, -one))
        _add_vector(b, BY_EDGES, i, by_e)
        _add_vector(b, BY_EDGES + 3 * T, i, by_f)
        _add_matrix(b, BY_SPREAD, i, g)
        _add_matrix(b, column, i, _doubled(g))
        b[column + 6 * T + i] += b[SEED + i] * density


@lanes
def add_rotated_slopes(b, constant, height, axis, half_width, column, turning, half, one):
    """The same for the mean over a rotation; ``turning`` are the columns of the axis and of half the range."""
    three = one + one + one
    third = half_width * half_width / three
    for i in range(T):
        d, q, e, f = _vector_at(b, D, i), _vector_at(b, Q, i), _vector_at(b, EDGES, i), _vector_at(b, EDGES + 3 * T, i)
        u = _cross(q, axis)
        adjugate, determinant = _inverse_parts(_add(_matrix_at(b, SPREAD, i), constant))
        inverse = one / determinant
        t, v = _scaled(_times(adjugate, u), inverse), _scaled(_times(adjugate, d), inverse)
        a, along = _dot(u, t), _dot(u, v)
        share = third / (one + a * third)
        v_ = _less(v, _scaled(t, share * along))
        m = _less(_scaled(_times(adjugate, e), inverse), _scaled(t, share * _dot(e, t)))
        n = _less(_scaled(_times(adjugate, f), inverse), _scaled(t, share * _dot(f, t)))
        flat = _flattening(_dot(m, d), _dot(m, e), three) + _flattening(_dot(n, d), _dot(n, f), three)
        mean, by_a, by_b, by_w = rotation_means(a, along, _dot(d, v), flat, half_width)
        root = math.sqrt(inverse)
        weight = b[SEED + i] * root * height
        mean_, by_a, by_b = half * mean * weight, by_a * weight, by_b * weight
        e_by_d, by_e, e_g = _edge_slopes(mean_ + mean_, e, m, v_, d, three)
        f_by_d, by_f, f_g = _edge_slopes(mean_ + mean_, f, n, v_, d, three)
        flat_g = _weighted(_add(e_g, f_g), -half)
        swept = _times(flat_g, u)
        g = _add(_outer(t, -by_a), _weighted(_products(t, v), -half * by_b))
        g = _add(_add(g, flat_g), _add(_outer(v, mean_), _weighted(adjugate, -inverse * mean_)))
        by_d = _plus(_less(_scaled(t, by_b), _scaled(v, mean_ + mean_)), _plus(e_by_d, f_by_d))
        by_u = _plus(_scaled(t, by_a + by_a), _plus(_scaled(v, by_b), _scaled(swept, third + third)))
        b[DENSITY + i] += root * height * mean
        _add_vector(b, BY_Q, i, _less(_cross(axis, by_u), by_d))
        _add_vector(b, BY_S, i, by_d)
        _add_vector(b, BY_EDGES, i, by_e)
        _add_vector(b, BY_EDGES + 3 * T, i, by_f)
        _add_matrix(b, BY_SPREAD, i, g)
        _add_matrix(b, column, i, _doubled(g))
        b[column + 6 * T + i] += b[SEED + i] * root * mean
        _add_vector(b, turning, i, _cross(by_u, q))
        b[turning + 3 * T + i] += weight * by_w + (half_width + half_width) / three * _dot(u, swept)


@lanes
def add_lattice_point(b, mosaic, step):
    """From derivatives in q0 and the covariance on to basis and mosaic, the columns from ``step`` on."""
    xx, yy, zz, yz, xz, xy = mosaic
    for i in range(T):
        q, g, h = _vector_at(b, Q, i), _matrix_at(b, BY_SPREAD, i), _vector_at(b, H0, i)
        z0 = _cross((g[0], g[5], g[4]), q)
        z1 = _cross((g[5], g[1], g[3]), q)
        z2 = _cross((g[4], g[3], g[2]), q)
        turn = (
            xy * z2[0] + yy * z2[1] + yz * z2[2] - (xz * z1[0] + yz * z1[1] + zz * z1[2]),
            xz * z0[0] + yz * z0[1] + zz * z0[2] - (xx * z2[0] + xy * z2[1] + xz * z2[2]),
            xx * z1[0] + xy * z1[1] + xz * z1[2] - (xy * z0[0] + yy * z0[1] + yz * z0[2]),
        )
        by_q = _plus(_vector_at(b, BY_Q, i), _plus(turn, turn))
        _add_matrix(b, BY_PIXEL, i, g)
        _add_vector(b, step + BASIS * T, i, _scaled(by_q, h[0]))
        _add_vector(b, step + (BASIS + 3) * T, i, _scaled(by_q, h[1]))
        _add_vector(b, step + (BASIS + 6) * T, i, _scaled(by_q, h[2]))
        _add_matrix(b, step + MOSAIC * T, i, _doubled(_turned(q, g)))
        b[TOTAL + i] += b[SEED + i] * b[DENSITY + i]


@lanes
def camera_slopes(a, b, p, plan):
    """Derivatives in the parameters of the camera, the first columns."""
    fast, slow, area = _vector(p, FAST_EDGE), _vector(p, SLOW_EDGE), p[AREA]
    per_wavelength, bandwidth, b_iso = p[PER_WAVELENGTH], p[BANDWIDTH], p[B_ISO]
    polarization, blur, normal, falls = _matrix(p, POLARIZATION), plan.blur, _vector(p, NORMAL), plan.falls
    flatness = plan.flatness
    top, bottom, absorbs = p[DEPTHS], p[DEPTHS + 1], plan.absorbs
    for i in range(T):
        d, s, inverse = _vector_at(a, FLIGHT, i), _vector_at(a, SCATTERING, i), a[INVERSE + i]
        g, y = _matrix_at(b, BY_PIXEL, i), b[TOTAL + i] + 0.0
        gs = _times(g, s)
        by_s = _plus(_vector_at(b, BY_S, i), _scaled(gs, 2.0 * bandwidth))
        if falls:
            b[COLUMNS + B_ISO * T + i] = -0.5 * _dot(s, s) * y
            by_s = _less(by_s, _scaled(s, b_iso * y))
        scale = per_wavelength * inverse
        weight = 2.0 * blur * scale * scale
        f, w = _across(fast, d), _across(slow, d)
        flat = flatness * scale
        by_f = _plus(_scaled(_times(g, f), weight), _scaled(_vector_at(b, BY_EDGES, i), flat))
        by_w = _plus(_scaled(_times(g, w), weight), _scaled(_vector_at(b, BY_EDGES + 3 * T, i), flat))
        by_scale = _dot(by_f, f) + _dot(by_w, w)
        along_f, along_w = _dot(by_f, d), _dot(by_w, d)
        md = _times(polarization, d)
        share = _dot(d, md)
        share = y / (share if share != 0.0 else 1.0)
        by_d = _plus(_scaled(by_s, per_wavelength), _scaled(md, 2.0 * share))
        by_d = _less(by_d, _plus(_scaled(fast, along_f), _scaled(by_f, _dot(fast, d))))
        by_d = _less(by_d, _plus(_scaled(slow, along_w), _scaled(by_w, _dot(slow, d))))
        if absorbs:
            path = 1.0 / _dot(d, normal)
            e0, e1 = a[TRANSMITTED + i], a[TRANSMITTED + T + i]
            part = y / (e0 - e1 if e0 != e1 else 1.0)
            by_cosine = -path * path * part * (bottom * e1 - top * e0)
            _put_vector(b, COLUMNS + NORMAL * T, i, _scaled(d, by_cosine))
            b[COLUMNS + DEPTHS * T + i], b[COLUMNS + (DEPTHS + 1) * T + i] = -part * e0 * path, part * e1 * path
            by_d = _plus(by_d, _scaled(normal, by_cosine))
        by_x = _less(_scaled(_across(by_d, d), inverse), _scaled(d, inverse * (by_scale + 3.0 * y)))
        across_f, across_w = _less(by_f, _scaled(d, along_f)), _less(by_w, _scaled(d, along_w))
        _put_vector(b, COLUMNS + ORIGIN * T, i, by_x)
        _put_vector(b, COLUMNS + FAST_EDGE * T, i, _plus(across_f, _scaled(by_x, a[FAST + i])))
        _put_vector(b, COLUMNS + SLOW_EDGE * T, i, _plus(across_w, _scaled(by_x, a[SLOW + i])))
        _put_vector(b, COLUMNS + WAVE * T, i, _scaled(by_s, -1.0))
        b[COLUMNS + PER_WAVELENGTH * T + i] = _dot(by_s, d) + by_scale / per_wavelength
        b[COLUMNS + BANDWIDTH * T + i] = _dot(s, gs)
        _put_matrix(b, COLUMNS + POLARIZATION * T, i, _doubled(_outer(d, share)))
        b[COLUMNS + AREA * T + i] = y / (area if area != 0.0 else 1.0)


@lanes
def add_scaled(out, columns, scales):
    """out += four columns times four numbers."""
    s0, s1, s2, s3 = scales
    for i in range(T):
        out[i] += s0 * columns[i] + s1 * columns[i + T] + s2 * columns[i + 2 * T] + s3 * columns[i + 3 * T]


@lane_sum
def column_sum(b, column):
    """Sum over lanes."""
    total = b[column] - b[column]
    for i in range(T):
        total += b[column + i]
    return total


__all__ = [
    "add_lattice_point",
    "add_rotated_slopes",
    "add_scaled",
    "add_slopes",
    "camera_slopes",
    "clear",
    "column_sum",
]
