/**
 * What a kernel is to the layers above it: WGSL text plus the buffers, uniform values and grid of one dispatch.
 *
 * A kernel author writes only the body. The declarations (uniform struct `params`, one storage array per
 * buffer, load and store helpers) are generated here, so that every kernel reads the same and storage in
 * f16 needs no second text: f16 tensors are stored as pairs in u32 and unpacked by core WGSL, which works
 * on devices without the `shader-f16` feature too.
 */

/** Storage type of a float tensor. Arithmetic and accumulation are always f32. */
export type FloatType = 'f32' | 'f16';

/** `u32` holds indices, `rgba8` holds one picture element per u32 (R in the lowest byte). */
export type DType = FloatType | 'u32' | 'rgba8';

export interface Uniform {
  type: 'u32' | 'i32' | 'f32';
  value: number;
}

export const u32 = (value: number): Uniform => ({ type: 'u32', value });
export const i32 = (value: number): Uniform => ({ type: 'i32', value });
export const f32 = (value: number): Uniform => ({ type: 'f32', value });

/**
 * One storage buffer of a kernel. `B` is whatever the caller uses to name buffers: a tensor of a graph
 * before memory is planned, a range of a GPU buffer afterwards.
 */
export interface BufferBinding<B> {
  /** WGSL identifier of the array. */
  name: string;
  ref: B;
  /** WGSL element type of the array, for example `vec4<f32>`, `vec2<u32>` or `u32`. */
  element: string;
  /**
   * With a float type, `load_NAME(i) -> vec4<f32>` (and `store_NAME(i, v)` for outputs) are generated:
   * i counts groups of four elements whatever the storage type.
   */
  dtype?: FloatType;
  write: boolean;
}

export interface KernelCall<B> {
  /** Shown by profilers and in errors, e.g. `conv2d.forward.subgroup`. */
  label: string;
  /** WGSL after the declarations; the entry point is `main`. */
  body: string;
  /** Directives that must stand first, e.g. `enable subgroups;`. */
  directives?: readonly string[];
  /** Fields of the uniform struct `params`, in order. */
  uniforms: Readonly<Record<string, Uniform>>;
  buffers: readonly BufferBinding<B>[];
  workgroups: readonly [number, number, number];
  /** Floating-point operations (a multiply-add counts as two) and bytes moved at least, for profiling. */
  flops: number;
  bytes: number;
}

/** How a storage array is declared: outputs and everything that may share their GPU buffer need read_write. */
export type Access = 'read' | 'read_write';

/**
 * A call whose inputs that are the same memory (x · x, a residual that is also what is convolved) are one array under
 * one name: WebGPU refuses a dispatch that binds a buffer twice where either binding may write.
 */
export function bindOnce<B>(call: KernelCall<B>, isSame: (a: B, b: B) => boolean): KernelCall<B> {
  let { body } = call;
  const buffers = call.buffers.filter((b, i) => {
    const first = call.buffers.find(
      (a, j) => j < i && !a.write && !b.write && a.element === b.element && isSame(a.ref, b.ref),
    );
    if (first) body = body.replace(new RegExp(`\\b(load_)?${b.name}\\b(?=[[(])`, 'g'), `$1${first.name}`);
    return !first;
  });
  return buffers.length < call.buffers.length ? { ...call, body, buffers } : call;
}

/** The complete WGSL of a call, given the access mode of each of its buffers. */
export function wgslOf(call: KernelCall<unknown>, access: readonly Access[]): string {
  const fields = Object.entries(call.uniforms);
  const lines: string[] = [...(call.directives ?? [])];
  if (fields.length > 0) {
    lines.push(`struct Params { ${fields.map(([n, u]) => `${n}: ${u.type}`).join(', ')} }`);
    lines.push('@group(0) @binding(0) var<uniform> params: Params;');
  }
  call.buffers.forEach((b, i) => {
    lines.push(`@group(0) @binding(${i + 1}) var<storage, ${access[i]}> ${b.name}: array<${b.element}>;`);
    if (b.dtype) lines.push(...accessors(b.name, b.dtype, b.write));
  });
  lines.push(call.body.trim());
  return `${lines.join('\n')}\n`;
}

function accessors(name: string, dtype: FloatType, write: boolean): string[] {
  const out: string[] = [];
  if (dtype === 'f32') {
    out.push(`fn load_${name}(i: u32) -> vec4<f32> { return ${name}[i]; }`);
    if (write) out.push(`fn store_${name}(i: u32, v: vec4<f32>) { ${name}[i] = v; }`);
  } else {
    out.push(
      `fn load_${name}(i: u32) -> vec4<f32> { let p = ${name}[i]; return vec4<f32>(unpack2x16float(p.x), unpack2x16float(p.y)); }`,
    );
    if (write) {
      // Saturating keeps a value beyond f16's range finite, as hardware converters with saturation do.
      out.push(
        `fn store_${name}(i: u32, v: vec4<f32>) { let c = clamp(v, vec4<f32>(-65504.0), vec4<f32>(65504.0)); ${name}[i] = vec2<u32>(pack2x16float(c.xy), pack2x16float(c.zw)); }`,
      );
    }
  }
  return out;
}

/** Packs the uniform values into the bytes of the struct `params` (all fields are 4 bytes wide). */
export function uniformBytes(uniforms: Readonly<Record<string, Uniform>>): Uint8Array {
  const fields = Object.values(uniforms);
  const bytes = new Uint8Array(Math.max(16, Math.ceil(fields.length / 4) * 16));
  const view = new DataView(bytes.buffer);
  fields.forEach((u, i) => {
    if (u.type === 'f32') view.setFloat32(i * 4, u.value, true);
    else if (u.type === 'i32') view.setInt32(i * 4, u.value, true);
    else view.setUint32(i * 4, u.value, true);
  });
  return bytes;
}
