// @TITLE@, one frame at a time, in LiteRT.js (npm package @litertjs/core).
// Written by edgelstm export-app; golden.html runs it against golden.json.

import {Tensor, loadAndCompile, loadLiteRt} from '@litertjs/core';

/** What the model takes, gives and carries, one frame a time. */
export const INPUTS = Object.freeze(@INPUTS@);
export const OUTPUTS = Object.freeze(@OUTPUTS@);
export const STATES = Object.freeze(@STATES@);

const ARRAYS = {float32: Float32Array, int32: Int32Array, int64: BigInt64Array, int8: Int8Array,
                uint8: Uint8Array, int16: Int16Array, bool: Uint8Array};

const count = (shape) => shape.reduce((all, size) => all * size, 1);

/**
 * @param {@INPUT_TYPE@} frame in natural units
 * @return {@INPUT_TYPE@} what push takes: (x - mean) / std of the inputs that have constants
 */
export function normalise(frame) {
  return scaled(frame, INPUTS, (value, mean, std) => Math.fround(value - mean) / std);
}

/**
 * @param {@OUTPUT_TYPE@} outputs as push gives them
 * @return {@OUTPUT_TYPE@} in natural units: y * std + mean of those that have constants
 */
export function denormalise(outputs) {
  return scaled(outputs, OUTPUTS, (value, mean, std) => Math.fround(value * std) + mean);
}

function scaled(arrays, tensors, rule) {
  const found = {...arrays};
  for (const {name, mean, std} of tensors) {
    if (mean === undefined || !(arrays[name] instanceof Float32Array)) continue;
    const [m, s] = [Float32Array.from(mean), Float32Array.from(std)];
    found[name] = arrays[name].map((value, i) => rule(value, m[i % m.length], s[i % s.length]));
  }
  return found;
}

/** A frame or a state that does not fit the model. */
export class MisfitError extends Error {}

function fitting(given, tensor, kind) {
  const Kind = ARRAYS[tensor.dtype];
  if (!(given instanceof Kind) || given.length !== count(tensor.shape)) {
    const found = given?.constructor?.name ?? typeof given;
    throw new MisfitError(`The ${kind} '${tensor.name}' takes ${Kind.name} of ` +
        `${count(tensor.shape)} numbers, not ${found} of ${given?.length}.`);
  }
  return given;
}

/**
 * A stream of the model; its states go on from frame to frame.
 *
 * Calls of push on one stream run one after another, in the order they were made.
 */
export class @CLASS@ {
  /**
   * Loads LiteRT.js, where that has not been done, and the model.
   *
   * @param {{model?: string|URL|Uint8Array, wasm: string, accelerator?: 'wasm'|'webgpu'}} from
   *     where the model is (beside this file by default) and the folder
   *     node_modules/@litertjs/core/wasm/ as the page can fetch it.
   * @return {Promise<@CLASS@>} with all states zero
   */
  static async load({model = new URL('./model.tflite', import.meta.url), wasm,
                     accelerator = 'wasm'}) {
    @CLASS@.runtime ??= loadLiteRt(wasm);
    await @CLASS@.runtime;
    const from = model instanceof URL ? model.href : model;
    return new @CLASS@(await loadAndCompile(from, {accelerator}));
  }

  constructor(compiled) {
    this.compiled = compiled;
    this.last = Promise.resolve();
    this.reset();
  }

  /** Sets every state to zero. */
  reset() {
    this.states = STATES.map((state) => new ARRAYS[state.dtype](count(state.shape)));
  }

  /** @return {Object<string, Float32Array>} copies of the states by name */
  getState() {
    return Object.fromEntries(STATES.map((state, i) => [state.name, this.states[i].slice()]));
  }

  /** @param {Object<string, Float32Array>} states by name, as getState gives them */
  setState(states) {
    this.states = STATES.map((state) => fitting(states[state.name], state, 'state').slice());
  }

  /** @return {@CLASS@} a stream of its own that goes on from here, on the same model */
  fork() {
    const other = new @CLASS@(this.compiled);
    other.setState(this.getState());
    return other;
  }

  /**
   * Runs the next frame.
   *
   * @param {@INPUT_TYPE@} frame
   * @return {Promise<@OUTPUT_TYPE@>} outputs by name; where it fails the states stay as they were
   */
  push(frame) {
    const given = INPUTS.map((input) => fitting(frame[input.name], input, 'input').slice());
    const run = this.last.then(() => this.step(given));
    this.last = run.catch(() => {});
    return run;
  }

  async step(given) {
    const tensors = {};
    let made = {};
    try {
      INPUTS.forEach((input, i) => {
        tensors[input.name] = new Tensor(given[i], input.shape);
      });
      STATES.forEach((state, i) => {
        tensors[state.input] = new Tensor(this.states[i], state.shape);
      });
      made = await this.compiled.run('@SIGNATURE@', tensors);
      const read = async (name) => (await made[name].data()).slice();
      const states = [];
      for (const state of STATES) states.push(await read(state.output));
      const outputs = {};
      for (const output of OUTPUTS) outputs[output.name] = await read(output.name);
      this.states = states;
      return outputs;
    } finally {
      for (const tensor of [...Object.values(tensors), ...Object.values(made)]) tensor.delete();
    }
  }
}
