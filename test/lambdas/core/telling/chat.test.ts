import { describe, expect, test } from 'vitest';
import { chatMessage } from '../../../../lambdas/core/telling/chat.ts';

const shown = (subject: string | null, message: string) =>
  JSON.parse(chatMessage(subject, message) ?? 'null');

describe('what a chat shows', () => {
  test('plain text, in the schema of custom notifications', () => {
    expect(shown('Encryption rollout: stopped', 'Phase 3: "Gate" said NO_GO.\nDo this next.')).toEqual({
      version: '1.0',
      source: 'custom',
      content: {
        textType: 'client-markdown',
        title: 'Encryption rollout: stopped',
        description: 'Phase 3: "Gate" said NO_GO.\nDo this next.',
      },
    });
  });

  test('a message without a subject has a title all the same', () => {
    expect(shown(null, 'text').content.title).toBe('Encryption rollout');
  });

  test('an alarm, which it understands by itself, is left to it', () => {
    expect(chatMessage('ALARM: x', JSON.stringify({ AlarmName: 'x', NewStateValue: 'ALARM' }))).toBeNull();
    expect(chatMessage(null, '{"some":"JSON"}')).not.toBeNull();
  });

  test('nobody is called by what a text happens to hold', () => {
    expect(shown('a & b', 'attested by <!channel>').content).toMatchObject({
      title: 'a &amp; b',
      description: 'attested by &lt;!channel&gt;',
    });
  });

  test('a long text is cut, and says so', () => {
    const { description } = shown(null, 'x'.repeat(20_000)).content;
    expect(description.length).toBeLessThan(6_100);
    expect(description).toMatch(/… \(cut; see the e-mail\)$/);
  });
});
