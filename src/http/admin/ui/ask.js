// Questions to the server.

const ANSWER_MAX_MS = 8000;

// What a server says to a question; an error has a line for people.
export async function ask(target) {
  // The page may have been opened by a URL with a token in it; browsers refuse to ask by such a one.
  const url = new URL(target, location.origin);
  let answer;
  try {
    answer = await fetch(url, { signal: AbortSignal.timeout(ANSWER_MAX_MS), headers: { Accept: "application/json" } });
  } catch {
    throw new Error("the server does not answer");
  }
  // A server that is not ready says so in JSON, too.
  if (answer.ok || target === "/ready") return answer.json();
  const line = told(await answer.text()).trim().slice(0, 200);
  throw new Error(line || `the server answers ${answer.status}`);
}

// What a failure says: the server has it as JSON, what stands between may have anything.
function told(text) {
  try {
    const { error, request_id: id } = JSON.parse(text);
    return id ? `${error} (request ${id})` : `${error}`;
  } catch {
    return text;
  }
}
