// Takes in what the feed sends: rows of HTML that the server has made and escaped.
const list = document.querySelector("#newest");
const told = document.querySelector("#feed");
const most = Number(list.dataset.most);
const source = new EventSource(`/feed?after=${list.dataset.after}`);
let count = 0;

function tell() {
  told.textContent = count ? `Live: ${count} new since you opened this page.` : "Live: new ones appear by themselves.";
}

source.addEventListener("open", tell);

source.addEventListener("error", () => {
  told.textContent = source.readyState === EventSource.CLOSED
    ? "No longer live. Reload the page, or sign in again."
    : "The line is broken; trying again.";
});

source.addEventListener("lines", (event) => {
  document.querySelector("#nothing").hidden = true;
  const before = list.children.length;
  list.insertAdjacentHTML("afterbegin", event.data);
  count += list.children.length - before;
  for (const line of [...list.children].slice(most)) {
    if (!line.contains(document.activeElement)) line.remove();
  }
  tell();
});

source.addEventListener("counts", (event) => {
  const counts = document.querySelector("#counts");
  if (counts && !counts.contains(document.activeElement)) counts.innerHTML = event.data;
});

addEventListener("pagehide", () => source.close());
