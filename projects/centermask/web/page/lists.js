// The list of classes, with switches, and the list of objects.

import { colour } from './drawing.js';

// Pairs of a label and its number of objects, the most frequent first.
export function countByLabel(objects) {
  const counts = new Map();
  for (const { label } of objects) counts.set(label, (counts.get(label) ?? 0) + 1);
  return [...counts].sort((a, b) => b[1] - a[1] || a[0] - b[0]);
}

// List the classes of objects. Lines that stay keep the keyboard's focus.
export function listClasses(fieldset, objects, classes, switchedOff, changed) {
  const list = fieldset.querySelector('ul');
  const known = new Map([...list.children].map((item) => [Number(item.dataset.label), item]));
  const items = countByLabel(objects).map(([label, count]) => {
    const item = known.get(label) ?? classItem(label, classes, switchedOff, changed);
    item.querySelector('input').checked = !switchedOff.has(label);
    item.querySelector('small').textContent = count;
    return item;
  });
  if (items.length !== list.children.length || items.some((item, i) => list.children[i] !== item)) {
    const focused = document.activeElement;
    list.replaceChildren(...items);
    focused?.focus();
  }
  fieldset.hidden = !items.length;
}

function classItem(label, classes, switchedOff, changed) {
  const [item, line, box, swatch, count] = ['li', 'label', 'input', 'span', 'small'].map(element);
  item.dataset.label = label;
  box.type = 'checkbox';
  box.onchange = () => {
    switchedOff[box.checked ? 'delete' : 'add'](label);
    changed();
  };
  swatch.className = 'swatch';
  swatch.style.background = classes.length > 1 ? `rgb(${colour(label)})` : 'currentColor';
  line.append(box, swatch, classes[label], count);
  item.append(line);
  return item;
}

// List objects as buttons, each of which selects its object; only while the list is open.
export function listObjects(details, objects, classes, select) {
  const list = details.querySelector('ol');
  details.hidden = !objects.length;
  const focused = document.activeElement?.dataset.number;
  list.replaceChildren(...(details.open ? objects : []).map((object) => objectItem(object, classes, select)));
  if (focused !== undefined) list.querySelector(`[data-number="${focused}"]`)?.focus();
}

function objectItem({ number, label, score, box }, classes, select) {
  const [item, button] = ['li', 'button'].map(element);
  const [left, top, right, bottom] = [...box].map(Math.round);
  button.type = 'button';
  button.dataset.number = number;
  button.textContent = `${classes[label]} ${score.toFixed(2)} at ${left}, ${top}, ${right - left}×${bottom - top}`;
  button.onfocus = button.onpointerenter = () => select(number);
  item.append(button);
  return item;
}

function element(name) {
  return document.createElement(name);
}
