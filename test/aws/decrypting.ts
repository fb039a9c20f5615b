/** A decryptor in another language, written from docs/format.md alone, on that page's vectors. */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { python } from './emulator.ts';

export function decrypting(): void {
  const page = readFileSync('docs/format.md', 'utf8');
  const vectors: Record<'iv' | 'value' | 'rowKey' | 'plaintext', string>[] = JSON.parse(
    /<!-- vectors -->\n+```json\n(.*?)```/s.exec(page)?.[1] ?? '',
  );
  const [, key] = /Master key `([0-9a-f]{64})`/.exec(page) ?? [];
  const opened = (values: readonly object[]) =>
    JSON.parse(
      execFileSync(python, ['test/format/decrypt.py'], {
        input: JSON.stringify({ key, values }),
        encoding: 'utf8',
      }),
    );

  test('Python opens every vector', () => {
    expect(opened(vectors)).toEqual(vectors.map(({ plaintext }) => plaintext));
  });

  test('and none that was altered, cut off or moved', () => {
    const [first] = vectors;
    if (first === undefined) throw new Error('docs/format.md has no vectors');
    const { value, iv } = first;
    const header = value.slice(0, 6);
    const altered = [
      { ...first, value: `${value.slice(0, -2)}00` },
      { ...first, value: value.slice(0, -2) },
      { ...first, rowKey: '6f1c1a0e-0000-4000-8000-000000000002' },
      // The same bytes under the tag, parted elsewhere.
      { ...first, iv: iv + value.slice(6, 38), value: header + value.slice(38) },
    ];
    expect(opened(altered)).toEqual(altered.map(() => null));
  });
}
