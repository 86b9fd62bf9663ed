import { BufferTarget, CanvasSource, Output, WebMOutputFormat } from 'mediabunny';

/** A WebM of eight small frames, encoded by the browser. */
export async function clip(): Promise<number[]> {
  const canvas = new OffscreenCanvas(96, 80);
  const pen = canvas.getContext('2d')!;
  const target = new BufferTarget();
  const output = new Output({ format: new WebMOutputFormat(), target });
  const source = new CanvasSource(canvas, { codec: 'vp8', bitrate: 200_000 });
  output.addVideoTrack(source);
  await output.start();
  for (let i = 0; i < 8; i++) {
    pen.fillStyle = `hsl(${i * 40}, 70%, 50%)`;
    pen.fillRect(0, 0, 96, 80);
    pen.fillStyle = 'white';
    pen.fillRect(8 * i, 20, 20, 30);
    await source.add(i / 4, 0.25);
  }
  await output.finalize();
  return [...new Uint8Array(target.buffer!)];
}
