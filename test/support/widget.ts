/** The dashboard's widget as CloudWatch's console treats it: what its buttons ask, and with what they call. */

/** What a button asks before it does anything, whom it calls, and with what. */
export interface WidgetButton {
  readonly label: string;
  readonly confirmation: string;
  readonly endpoint: string;
  readonly asked: Record<string, unknown>;
}

const entities: Record<string, string> = { amp: '&', lt: '<', gt: '>', quot: '"', '#39': "'" };
const unescaped = (html: string) =>
  html.replace(/&(amp|lt|gt|quot|#39);/g, (_, name) => entities[name] ?? '');

/** Each `<cwdb-action>`, and the element before it, which it belongs to. */
export function buttonsOf(html: string): WidgetButton[] {
  return [
    ...html.matchAll(/<a class="btn[^"]*">([^<]*)<\/a><cwdb-action ([^>]*)>([^<]*)<\/cwdb-action>/g),
  ].map(([, label = '', attributes = '', content = '']) => {
    const of = (name: string) =>
      unescaped(new RegExp(`${name}="([^"]*)"`).exec(attributes)?.[1] ?? `no ${name}`);
    if (of('action') !== 'call') throw new Error(`${label} calls nothing`);
    return {
      label: unescaped(label),
      confirmation: of('confirmation'),
      endpoint: of('endpoint'),
      asked: JSON.parse(unescaped(content)),
    };
  });
}

/** What the console adds to every call. `typed`: into the fields of the page. */
export function widgetCall(typed: Record<string, string> = {}, asked: object = {}): object {
  return {
    ...asked,
    widgetContext: {
      dashboardName: 'Payments',
      widgetId: 'widget-1',
      accountId: '123456789012',
      locale: 'en',
      timezone: { label: 'UTC', offsetISO: '+00:00', offsetInMinutes: 0 },
      theme: 'light',
      title: 'Rollout',
      forms: { all: typed },
      params: {},
      width: 588,
      height: 369,
    },
  };
}
