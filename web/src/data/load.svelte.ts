/** What a question to the data source has come to, for views that show it. */
export interface Loaded<T> {
  readonly value: T;
  readonly state: "loading" | "loaded" | "failed";
  readonly error: string;
}

/** Asks again whenever something the question reads has changed; an answer that comes too late is dropped. */
export function load<T>(question: () => Promise<T>, empty: T): Loaded<T> {
  let value = $state.raw(empty);
  let state = $state<Loaded<T>["state"]>("loading");
  let error = $state("");
  $effect(() => {
    let current = true;
    question().then(
      (answer) => {
        if (!current) return;
        value = answer;
        state = "loaded";
      },
      (reason: unknown) => {
        if (!current) return;
        error = String(reason);
        state = "failed";
      },
    );
    return () => {
      current = false;
    };
  });
  return {
    get value() {
      return value;
    },
    get state() {
      return state;
    },
    get error() {
      return error;
    },
  };
}
