// @TITLE@, one frame at a time, in LiteRT.js. Written by edgelstm export-app.

export interface TensorInfo {
  readonly name: string;
  readonly shape: readonly number[];
  readonly dtype: string;
  readonly mean?: readonly number[];
  readonly std?: readonly number[];
}

export declare const INPUTS: readonly TensorInfo[];
export declare const OUTPUTS: readonly TensorInfo[];
export declare const STATES: readonly TensorInfo[];

export declare class MisfitError extends Error {}

export type Frame = @INPUT_TYPE@;
export type Outputs = @OUTPUT_TYPE@;
export type States = @STATE_TYPE@;

export declare function normalise(frame: Frame): Frame;
export declare function denormalise(outputs: Outputs): Outputs;

export declare class @CLASS@ {
  static load(from: {
    model?: string | URL | Uint8Array;
    wasm: string;
    accelerator?: 'wasm' | 'webgpu';
  }): Promise<@CLASS@>;
  reset(): void;
  getState(): States;
  setState(states: States): void;
  fork(): @CLASS@;
  push(frame: Frame): Promise<Outputs>;
}
