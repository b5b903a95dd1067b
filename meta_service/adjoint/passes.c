/* The normalisation passes of passes.py, each fused into one or two sweeps over memory.

   Arrays are dense, [tasks][rows][channels] with rows = images * height * width; statistics and shifts are
   [tasks][channels]. A pooled layer keeps, for each window, the place 0..3 of its first largest entry. Sums run over
   short runs of rows in the arrays' own type and are then added up in double. Compiled twice: for float and double. */
#ifndef REAL
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#define REAL float
#define FN(name) name##_f32
#include "passes.c"
#undef REAL
#undef FN
#define REAL double
#define FN(name) name##_f64
#include "passes.c"
#else

typedef REAL FN(real);
#define real FN(real)
#define RUN 64 /* rows added up before they go into the double sums */

/* mean and 1 / sqrt(variance + epsilon) of the first `reference` rows; the first row is the pivot of the squares. */
void FN(statistics)(long tasks, long rows, long reference, long channels, double epsilon, const real *restrict z,
                    real *restrict mean, real *restrict rstd) {
    real *s = malloc(2 * channels * sizeof(real)), *q = s + channels;
    double *S = malloc(2 * channels * sizeof(double)), *Q = S + channels;
    for (long t = 0; t < tasks; t++, z += rows * channels, mean += channels, rstd += channels) {
        memset(S, 0, 2 * channels * sizeof(double));
        for (long start = 0; start < reference; start += RUN) {
            long end = start + RUN < reference ? start + RUN : reference;
            memset(s, 0, 2 * channels * sizeof(real));
            for (long m = start; m < end; m++)
                for (long c = 0; c < channels; c++) {
                    real d = z[m * channels + c] - z[c];
                    s[c] += d;
                    q[c] += d * d;
                }
            for (long c = 0; c < channels; c++) S[c] += s[c], Q[c] += q[c];
        }
        for (long c = 0; c < channels; c++) {
            double offset = S[c] / reference, variance = Q[c] / reference - offset * offset;
            mean[c] = (real)(z[c] + offset);
            rstd[c] = (real)(1 / sqrt((variance < 0 ? 0 : variance) + epsilon));
        }
    }
    free(s), free(S);
}

/* p = relu(rstd (z - mean) + shift) */
void FN(activate)(long tasks, long rows, long channels, const real *restrict z, const real *restrict mean,
                  const real *restrict rstd, const real *restrict shift, real *restrict p) {
    for (long t = 0; t < tasks; t++, mean += channels, rstd += channels, shift += channels)
        for (long m = 0; m < rows; m++, z += channels, p += channels)
            for (long c = 0; c < channels; c++) {
                real y = rstd[c] * (z[c] - mean[c]) + shift[c];
                p[c] = y <= 0 ? 0 : y; /* NaN stays NaN */
            }
}

/* The same of the largest entry of each 2 x 2 window, and its place. */
void FN(activate_pooled)(long tasks, long images, long height, long width, long channels, const real *restrict z,
                         const real *restrict mean, const real *restrict rstd, const real *restrict shift,
                         real *restrict p, int32_t *restrict place) {
    for (long t = 0; t < tasks; t++, mean += channels, rstd += channels, shift += channels)
        for (long n = 0; n < images; n++, z += height * width * channels)
            for (long i = 0; i < height / 2; i++)
                for (long j = 0; j < width / 2; j++, p += channels, place += channels) {
                    const real *z0 = z + (2 * i * width + 2 * j) * channels, *z1 = z0 + channels;
                    const real *z2 = z0 + width * channels, *z3 = z2 + channels;
                    for (long c = 0; c < channels; c++) {
                        real best = z0[c];
                        int32_t at = 0;
                        if (z1[c] > best) best = z1[c], at = 1;
                        if (z2[c] > best) best = z2[c], at = 2;
                        if (z3[c] > best) best = z3[c], at = 3;
                        real y = rstd[c] * (best - mean[c]) + shift[c];
                        p[c] = y <= 0 ? 0 : y;
                        place[c] = at;
                    }
                }
}

/* gy = g where p > 0, else 0; sums over rows: `sum` of gy, `dot` of gy * (p - shift) */
void FN(masked)(long tasks, long rows, long channels, const real *restrict g, const real *restrict p,
                const real *restrict shift, real *restrict gy, real *restrict sum, real *restrict dot) {
    double *S = malloc(2 * channels * sizeof(double)), *Q = S + channels;
    for (long t = 0; t < tasks; t++, shift += channels, sum += channels, dot += channels) {
        memset(S, 0, 2 * channels * sizeof(double));
        memset(sum, 0, channels * sizeof(real)), memset(dot, 0, channels * sizeof(real));
        for (long m = 0; m < rows; m++, g += channels, p += channels, gy += channels) {
            for (long c = 0; c < channels; c++) {
                gy[c] = p[c] > 0 ? g[c] : 0;
                sum[c] += gy[c];
                dot[c] += gy[c] * (p[c] - shift[c]);
            }
            if (m % RUN == RUN - 1 || m == rows - 1)
                for (long c = 0; c < channels; c++) S[c] += sum[c], Q[c] += dot[c], sum[c] = dot[c] = 0;
        }
        for (long c = 0; c < channels; c++) sum[c] = (real)S[c], dot[c] = (real)Q[c];
    }
    free(S);
}

/* dgy = dg where p > 0, else 0; sums over rows: `sum` of dgy, `dot` of dgy * (p - shift) + gy * (dp - dshift) */
void FN(masked_tangent)(long tasks, long rows, long channels, const real *restrict dg, const real *restrict gy,
                        const real *restrict p, const real *restrict dp, const real *restrict shift,
                        const real *restrict dshift, real *restrict dgy, real *restrict sum, real *restrict dot) {
    double *S = malloc(2 * channels * sizeof(double)), *Q = S + channels;
    for (long t = 0; t < tasks; t++, shift += channels, dshift += channels, sum += channels, dot += channels) {
        memset(S, 0, 2 * channels * sizeof(double));
        memset(sum, 0, channels * sizeof(real)), memset(dot, 0, channels * sizeof(real));
        for (long m = 0; m < rows; m++, dg += channels, gy += channels, p += channels, dp += channels, dgy += channels) {
            for (long c = 0; c < channels; c++) {
                dgy[c] = p[c] > 0 ? dg[c] : 0;
                sum[c] += dgy[c];
                dot[c] += dgy[c] * (p[c] - shift[c]) + gy[c] * (dp[c] - dshift[c]);
            }
            if (m % RUN == RUN - 1 || m == rows - 1)
                for (long c = 0; c < channels; c++) S[c] += sum[c], Q[c] += dot[c], sum[c] = dot[c] = 0;
        }
        for (long c = 0; c < channels; c++) sum[c] = (real)S[c], dot[c] = (real)Q[c];
    }
    free(S);
}

/* Means over rows: `mean_dz` of dz, `along` of xhat * dz, where xhat = rstd (z - mean) */
void FN(tangent_statistics)(long tasks, long rows, long channels, const real *restrict z, const real *restrict dz,
                            const real *restrict mean, const real *restrict rstd, real *restrict mean_dz,
                            real *restrict along) {
    double *S = malloc(2 * channels * sizeof(double)), *Q = S + channels;
    for (long t = 0; t < tasks; t++, mean += channels, rstd += channels, mean_dz += channels, along += channels) {
        memset(S, 0, 2 * channels * sizeof(double));
        memset(mean_dz, 0, channels * sizeof(real)), memset(along, 0, channels * sizeof(real));
        for (long m = 0; m < rows; m++, z += channels, dz += channels) {
            for (long c = 0; c < channels; c++) {
                mean_dz[c] += dz[c];
                along[c] += (z[c] - mean[c]) * dz[c];
            }
            if (m % RUN == RUN - 1 || m == rows - 1)
                for (long c = 0; c < channels; c++) S[c] += mean_dz[c], Q[c] += along[c], mean_dz[c] = along[c] = 0;
        }
        for (long c = 0; c < channels; c++)
            mean_dz[c] = (real)(S[c] / rows), along[c] = (real)(rstd[c] * Q[c] / rows);
    }
    free(S);
}

/* dp = rstd (dz - mean_dz - xhat along) + dshift where p > 0, else 0; xhat = p - shift there */
#define TANGENT(selected) (p[c] > 0 ? rstd[c] * ((selected) - mean_dz[c] - (p[c] - shift[c]) * along[c]) + dshift[c] : 0)
void FN(activate_tangent)(long tasks, long rows, long channels, const real *restrict dz, const real *restrict p,
                          const real *restrict rstd, const real *restrict shift, const real *restrict mean_dz,
                          const real *restrict along, const real *restrict dshift, real *restrict dp) {
    for (long t = 0; t < tasks; t++) {
        for (long m = 0; m < rows; m++, dz += channels, p += channels, dp += channels)
            for (long c = 0; c < channels; c++) dp[c] = TANGENT(dz[c]);
        rstd += channels, shift += channels, mean_dz += channels, along += channels, dshift += channels;
    }
}

void FN(activate_tangent_pooled)(long tasks, long images, long height, long width, long channels,
                                 const real *restrict dz, const real *restrict p, const int32_t *restrict place,
                                 const real *restrict rstd, const real *restrict shift, const real *restrict mean_dz,
                                 const real *restrict along, const real *restrict dshift, real *restrict dp) {
    for (long t = 0; t < tasks; t++) {
        for (long n = 0; n < images; n++, dz += height * width * channels)
            for (long i = 0; i < height / 2; i++)
                for (long j = 0; j < width / 2; j++, p += channels, dp += channels, place += channels) {
                    const real *d0 = dz + (2 * i * width + 2 * j) * channels, *d1 = d0 + channels;
                    const real *d2 = d0 + width * channels, *d3 = d2 + channels;
                    for (long c = 0; c < channels; c++) {
                        real low = place[c] & 1 ? d1[c] : d0[c], high = place[c] & 1 ? d3[c] : d2[c];
                        real selected = place[c] & 2 ? high : low;
                        dp[c] = TANGENT(selected);
                    }
                }
        rstd += channels, shift += channels, mean_dz += channels, along += channels, dshift += channels;
    }
}

/* One pixel of `spread`: o = a + b z (+ c dz) (+ r e (+ s f)) (where place = k) */
#define ADDED(sum)                                                                                      \
    if (place) for (long c = 0; c < channels; c++) { real here = (sum); o[c] += place[c] == k ? here : 0; } \
    else for (long c = 0; c < channels; c++) o[c] += (sum);
static inline void FN(spread_pixel)(long channels, const real *restrict z, const real *restrict dz,
                                    const real *restrict a, const real *restrict b, const real *restrict c_,
                                    const real *restrict r, const real *restrict e, const real *restrict s,
                                    const real *restrict f, const int32_t *restrict place, int k, real *restrict o) {
    if (dz) for (long c = 0; c < channels; c++) o[c] = a[c] + b[c] * z[c] + c_[c] * dz[c];
    else for (long c = 0; c < channels; c++) o[c] = a[c] + b[c] * z[c];
    if (e && f) { ADDED(r[c] * e[c] + s[c] * f[c]) }
    else if (e) { ADDED(r[c] * e[c]) }
}

/* out = a + b z + c dz everywhere, plus r e + s f at the entries that went on: all of them, or the place of each window.
   dz with c and f with s may be absent. Images from `reference` on have a = b = c = 0. Factors: [tasks][channels]. */
void FN(spread)(long tasks, long images, long height, long width, long channels, long reference, long pooled,
                const real *z, const real *dz, const real *a, const real *b, const real *c, const real *r,
                const real *e, const real *s, const real *f, const int32_t *place, real *out) {
    real *zero = calloc(channels, sizeof(real));
    for (long t = 0; t < tasks; t++)
        for (long n = 0; n < images; n++) {
            int inside = n < reference;
            const real *A = inside ? a + t * channels : zero, *B = inside ? b + t * channels : zero;
            const real *C = !dz ? 0 : inside ? c + t * channels : zero;
            const real *R = r + t * channels, *S = f ? s + t * channels : 0;
            for (long i = 0; i < height; i++)
                for (long j = 0; j < width; j++, z += channels, dz += dz ? channels : 0, out += channels) {
                    long window = (i / 2 * (width / 2) + j / 2) * channels;
                    int covered = i < height / 2 * 2 && j < width / 2 * 2; /* not the last of an odd image */
                    long from = pooled ? window : (i * width + j) * channels;
                    const real *E = covered || !pooled ? e + from : 0, *F = f && E ? f + from : 0;
                    const int32_t *at = pooled && covered ? place + window : 0;
                    FN(spread_pixel)(channels, z, dz, A, B, C, R, E, S, F, at, i % 2 * 2 + j % 2, out);
                }
            long went_on = (pooled ? (height / 2) * (width / 2) : height * width) * channels;
            e += went_on;
            if (f) f += went_on;
            if (pooled) place += went_on;
        }
    free(zero);
}

/* The adjoint of cutting [3][3] patches with a border of one: adds patches [tasks * images][h][w][3][3][channels] into
   images [tasks * images][height][width][channels]. */
void FN(fold)(long images, long height, long width, long channels, long h, long w, long stride,
              const real *restrict patches, real *restrict out) {
    memset(out, 0, images * height * width * channels * sizeof(real));
    for (long n = 0; n < images; n++, out += height * width * channels)
        for (long i = 0; i < h; i++)
            for (long j = 0; j < w; j++, patches += 9 * channels)
                for (long k = 0; k < 9; k++) {
                    long y = i * stride + k / 3 - 1, x = j * stride + k % 3 - 1;
                    if (y < 0 || y >= height || x < 0 || x >= width) continue;
                    real *o = out + (y * width + x) * channels;
                    const real *g = patches + k * channels;
                    for (long c = 0; c < channels; c++) o[c] += g[c];
                }
}
#undef real
#undef RUN
#undef TANGENT
#undef ADDED
#endif
